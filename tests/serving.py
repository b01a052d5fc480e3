"""A service on loopback, in this process: real sockets, a real model."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fenlei.serving import life
from fenlei.serving.life import Server, Settings
from fenlei.serving.processes import listen


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A service that answers on `port`."""

    server: Server
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """`body`: bytes as they are, anything else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        return self.send("POST", path, body, headers)


@contextmanager
def running(run: Path, **settings: Any) -> Iterator[Running]:
    """The run served until the block ends."""
    listener = listen("127.0.0.1", 0)
    server = Server(Settings(run, device="cpu", **settings))
    thread = threading.Thread(target=server.run_on, args=(listener,), name="server")
    thread.start()
    service = Running(server, listener.getsockname()[1])
    try:
        until = time.monotonic() + 60
        while service.get("/ready").status != 200:
            assert time.monotonic() < until, "the service did not become ready"
            assert thread.is_alive(), "the service ended"
            time.sleep(0.02)
        yield service
    finally:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(life, "LINGER_SECONDS", 0.05)  # nobody is about to send anything
            server.should_exit = True
            thread.join(30)
        assert not thread.is_alive(), "the service did not end"
