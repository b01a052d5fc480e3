"""Schemathesis over the OpenAPI description, and a hostile set by hand: no answer is a 5xx, and the service lives on.

python -m bench.serve_fuzz [--cases N] [--quick]

Schemathesis runs as a program of its own (`pip install schemathesis` anywhere): FENLEI_SCHEMATHESIS, else `schemathesis` on the path.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

from bench.runs import conclude_all
from bench.serving import ask_once, fenlei_server, model_run, serving

CASES, OPERATIONS = 5000, 4
KEY = "the-key-of-the-fuzz-bench"
CONNECTIONS = 1000
HEAD = (
    "POST /v1/classify HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)

BODIES = {
    "10 MB": b'{"texts": ["' + b"a" * 10_000_000 + b'"]}',
    "deep": b'{"texts": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep and open": b"[" * 1_000_000,
    "NaN": b'{"texts": [NaN, Infinity]}',
    "null bytes": b'{"texts": ["\\u0000\\u0000"]}',
    "bare null bytes": b"\x00" * 1000,
    "lone surrogate": b'{"texts": ["\\ud800"], "\\udfff": 1}',
    "wrong types": b'{"texts": {"a": 1}, "labels": 5}',
    "long number": b'{"texts": [' + b"9" * 100_000 + b"]}",
    "not UTF-8": b'{"texts": ["\xff\xfe"]}',
    "many texts": json.dumps({"texts": ["a"] * 100_000}).encode(),
    "many keys": b"{" + b",".join(b'"%d": 1' % at for at in range(100_000)) + b"}",
}


def main() -> None:
    """The last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--quick", action="store_true", help="few cases: only shows that it runs")
    given = parser.parse_args()
    cases = 100 if given.quick else given.cases
    run, _ = model_run("nano", quick=given.quick)
    os.environ["FENLEI_API_KEYS"] = KEY
    with serving(fenlei_server(run, "--read-timeout", "3")) as (child, port):
        by_hand = asyncio.run(hostile(port))
        print(f"by hand: {by_hand}", flush=True)
        tried, server_errors = schemathesis(port, cases)
        alive = asyncio.run(ask_once(port, "/health"))[0] == 200 and child.poll() is None
    five_hundreds = sum(count for said, count in by_hand.items() if re.search(r" 5\d\d$", said))
    found = {
        "cases over those asked for": (tried / cases, 1.0),
        "no 5xx": (float(server_errors == 0 and five_hundreds == 0), 1.0),
        "alive behind it": (float(alive), 1.0),
    }
    conclude_all("hostile requests", found, cases=tried, server_errors=server_errors + five_hundreds)


def schemathesis(port: int, cases: int) -> tuple[int, int]:
    """How many cases were tried, and how many were answered with a 5xx."""
    program = os.environ.get("FENLEI_SCHEMATHESIS") or shutil.which("schemathesis")
    if program is None:
        sys.exit("install schemathesis (pip install schemathesis, in any environment) or set FENLEI_SCHEMATHESIS to it")
    command = [
        program, "run", f"http://127.0.0.1:{port}/openapi.json", "--header", f"Authorization: Bearer {KEY}",
        "--checks", "not_a_server_error",
        "--max-examples", str(-(-cases // OPERATIONS)), "--phases", "examples,coverage,fuzzing", "--exclude-path", "/admin/reload",
        "--continue-on-failure", "--seed", "1", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout[-3000:], done.stderr[-1000:], flush=True)
    tried = re.search(r"(\d[\d,]*) generated", done.stdout)
    failures = re.search(r"[Ss]erver error: (\d+)|(\d+) unique failure", done.stdout)
    return int(tried[1].replace(",", "")) if tried else 0, int(next(filter(None, failures.groups()))) if failures else 0


async def hostile(port: int) -> Counter[str]:
    """What each of the set was answered with, a line an attack."""
    said: Counter[str] = Counter()
    for name, body in BODIES.items():
        said[f"{name} {await _status(port, [HEAD.format(key=KEY, length=len(body)).encode() + body])}"] += 1
    slow = [HEAD.format(key=KEY, length=100).encode(), *(b"a" for _ in range(20))]
    said[f"dripping body {await _status(port, slow, pause=0.5)}"] += 1
    said[f"dripping head {await _status(port, [b'P', b'O', b'S', b'T', b' '] * 4, pause=0.5)}"] += 1
    said[f"half closed {await _status(port, [HEAD.format(key=KEY, length=12).encode() + b'{'], half_close=True)}"] += 1
    wrong = HEAD.format(key="a-wrong-key-of-some-length", length=2).encode() + b"{}"
    for status in await asyncio.gather(*(_status(port, [wrong]) for _ in range(500))):
        said[f"wrong key {status}"] += 1
    body = json.dumps({"texts": ["好"]}).encode()
    whole = HEAD.format(key=KEY, length=len(body)).encode() + body
    for status in await asyncio.gather(*(_status(port, [whole]) for _ in range(CONNECTIONS))):
        said[f"{CONNECTIONS} connections at once {status}"] += 1
    return said


async def _status(port: int, parts: Sequence[bytes], *, pause: float = 0.0, half_close: bool = False) -> str:
    """The status, or that the connection was closed without one."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        if half_close:
            writer.write_eof()
        line = await asyncio.wait_for(reader.readline(), 40)
        writer.close()
    except (OSError, asyncio.TimeoutError) as error:
        return type(error).__name__
    return line.split(b" ")[1].decode() if line else "closed"


if __name__ == "__main__":
    main()
