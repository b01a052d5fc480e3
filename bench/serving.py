"""A service as a child process, and callers that keep their connections: what the benches of the service share.

The callers speak HTTP/1.1 over bare sockets in this process, so that they cost every side the same, and little.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fenlei.data
from bench.prediction import titles_run
from bench.runs import WORK, head_of, shared, trained
from bench.side_by_side import OWN_AFFAIRS, ROOT
from fenlei.data.readers import read_examples

BUILTIN = Path(fenlei.data.__path__[0]) / "builtin"
START_SECONDS = 300.0


@dataclass(frozen=True)
class Server:
    """How a side's server is started, and how it is asked about one text. `{port}` in the command is its port."""

    name: str
    command: tuple[str, ...]
    path: str
    key: str
    """The field of the request that holds the text, as a list unless `bare`."""
    bare: bool = False
    ready: str = "/health"

    def body(self, text: str) -> bytes:
        return json.dumps({self.key: text if self.bare else [text]}, ensure_ascii=False).encode()


@dataclass
class Answered:
    """What callers saw."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds of every request that was answered 200."""
    statuses: Counter[int] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    """Connections that ended without an answer to what was sent."""

    @property
    def a_second(self) -> float:
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Seconds."""
        if len(self.latencies) < 2:
            return self.latencies[0] if self.latencies else float("nan")
        return statistics.quantiles(self.latencies, n=1000, method="inclusive")[round(1000 * share) - 1]


def fenlei_server(run: Path, *options: str) -> Server:
    """`fenlei serve` with its defaults."""
    command = (sys.executable, "-m", "fenlei", "serve", str(run), "--port", "{port}", *options)
    return Server("fenlei", command, "/v1/classify", "texts", ready="/ready")


def model_run(model: str, *, quick: bool) -> tuple[Path, list[str]]:
    """The run to serve, and texts to ask it: `nano` on the built-in news, or the real model on news titles."""
    if model == "nano":
        name = "serve_nano"
        trained(name, BUILTIN / "train.jsonl", BUILTIN / "test.jsonl", model="nano", tuning="full", epochs=1, baseline=False)
        return WORK / name, [example.text for example in read_examples(BUILTIN / "test.jsonl")]
    titles = head_of(shared() / "data" / "thucnews10" / "dev.jsonl", 2000)
    return titles_run(quick=quick), [example.text for example in read_examples(titles)]


@contextmanager
def serving(server: Server) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The server's process and port, when it answers; ended with SIGTERM, then by force."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OWN_AFFAIRS)}
    environment |= {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    command = [part.replace("{port}", str(port)) for part in server.command]
    log = WORK / "logs" / f"{server.name.replace(' ', '_')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        asyncio.run(_until_ready(child, port, server, log))
        yield child, port
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(90)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes | None) -> tuple[int, bytes, bool]:
    """Status and body of one request on an open connection, and whether the server keeps it open."""
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body or b'')}\r\n\r\n"
    writer.write(head.encode() + (body or b""))
    status = int((await reader.readline()).split(b" ")[1])
    length, kept = 0, True
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "content-length":
            length = int(value)
        elif name.lower() == "connection":
            kept = value.strip().lower() != "close"
    return status, await reader.readexactly(length), kept


async def closed_loop(port: int, server: Server, texts: Sequence[str], connections: int, seconds: float) -> Answered:
    """`connections` callers, each with one text a request and the next request after the answer, for `seconds`."""
    answered = Answered()
    bodies = [server.body(text) for text in texts]
    began = time.perf_counter()

    async def caller(place: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at = place
        while time.perf_counter() - began < seconds:
            sent = time.perf_counter()
            status, _, kept = await call(reader, writer, server.path, bodies[at % len(bodies)])
            answered.statuses[status] += 1
            if status == 200:
                answered.latencies.append(time.perf_counter() - sent)
            if not kept:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            at += connections
        writer.close()

    await asyncio.gather(*(caller(place) for place in range(connections)))
    answered.seconds = time.perf_counter() - began
    return answered


async def ask_once(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    status, told, _ = await call(reader, writer, path, None if body is None else json.dumps(body).encode())
    writer.close()
    return status, json.loads(told) if told[:1] in (b"{", b"[") else told


async def _until_ready(child: subprocess.Popen[bytes], port: int, server: Server, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if child.poll() is not None:
            sys.exit(f"{server.name} ended with {child.returncode}:\n{log.read_text(errors='replace')[-4000:]}")
        try:
            if (await ask_once(port, server.ready))[0] == 200:
                return
        except (OSError, IndexError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.2)
    sys.exit(f"{server.name} was not ready within {START_SECONDS:g} s; see {log}")
