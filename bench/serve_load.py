"""Mixed load at twice the capacity: no error but 429, memory flat, every accepted request answered, and right; then SIGTERM amid it.

python -m bench.serve_load [--model nano|real] [--minutes N] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from bench.runs import conclude_all
from bench.serving import Answered, call, closed_loop, fenlei_server, model_run, serving
from fenlei.inference.classifier import Classifier

TIMES_CAPACITY = 2.0
CALLERS = 600
"""Connections that requests are sent on; where all are waiting for an answer, the next request is late, and said."""
KINDS = ((0.7, 1, 1), (0.2, 8, 1), (0.1, 1, 12))
"""Share of the requests, texts each, and how many times its text is repeated: titles, small batches, long texts."""
SAME_LABEL = 0.998
MEMORY_GROWTH = 0.05
SETTLED = 0.2
"""Share of the time after which memory is first read."""
SAMPLE_SECONDS = 1.0


@dataclass
class Seen(Answered):
    """And what was said."""

    texts: int = 0
    right: int = 0
    late: int = 0
    memory: list[int] = field(default_factory=list)
    """Bytes, a second apart."""


def main() -> None:
    """The last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("nano", "real"), default="real")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true", help="half a minute: only shows that it runs")
    given = parser.parse_args()
    seconds = 30.0 if given.quick else 60 * given.minutes
    run, texts = model_run(given.model, quick=given.quick)
    texts = texts[:500]
    expected = [one.label for one in Classifier.load(run).predict([*texts, *(12 * text for text in texts)])]
    server = fenlei_server(run, "--max-queue", "256")
    with serving(server) as (child, port):
        capacity = asyncio.run(closed_loop(port, server, texts, 64, 3.0 if given.quick else 15.0)).a_second
        print(f"capacity: {capacity:.1f} titles a second at 64 connections", flush=True)
        seen = asyncio.run(flood(port, texts, expected, child.pid, seconds, TIMES_CAPACITY * capacity))
        ended = asyncio.run(stop_amid(port, texts, expected, child.pid, capacity))
        code = child.wait(90)
    first, last = seen.memory[int(SETTLED * len(seen.memory))], max(seen.memory[-10:])
    strange = {status: count for status, count in (seen.statuses + ended.statuses).items() if status not in (200, 429)}
    print(f"answers {dict(seen.statuses)}, lost {dict(seen.lost)}, late {seen.late}, memory {first / 1e6:.0f} -> {last / 1e6:.0f} MB")
    print(f"SIGTERM amid it: exit code {code}, answers {dict(ended.statuses)}, lost {dict(ended.lost)}")
    found = {
        "no answer but 200 and 429": (float(not strange and not seen.lost), 1.0),
        "same label": (seen.right / max(seen.texts, 1), SAME_LABEL),
        "memory at first over memory at last": (first / last, 1 / (1 + MEMORY_GROWTH)),
        "SIGTERM: all answered, exit code 0": (float(not ended.lost and code == 0), 1.0),
    }
    conclude_all(f"twice the load, {given.model}", found, texts=seen.texts, refused=seen.statuses[429], seconds=seconds)


async def flood(port: int, texts: Sequence[str], expected: Sequence[str], pid: int, seconds: float, a_second: float) -> Seen:
    """Requests at random moments, `a_second` texts a second, whether or not the ones before are answered."""
    seen, queue = Seen(), asyncio.Queue[tuple[list[str], list[str]] | None](CALLERS)
    callers = [asyncio.ensure_future(_caller(port, queue, seen)) for _ in range(CALLERS)]
    chance = random.Random(0)
    each = sum(share * count for share, count, _ in KINDS)
    began = due = time.perf_counter()
    sampled = began
    while (now := time.perf_counter()) - began < seconds:
        if now >= due:
            due += chance.expovariate(a_second / each)
            if queue.full():
                seen.late += 1
            else:
                queue.put_nowait(_request(chance, texts, expected))
        if now - sampled >= SAMPLE_SECONDS:
            sampled = now
            seen.memory.append(psutil.Process(pid).memory_info().rss)
        await asyncio.sleep(max(0.0, min(due - time.perf_counter(), 0.05)))
    for _ in callers:
        await queue.put(None)
    await asyncio.gather(*callers)
    seen.seconds = time.perf_counter() - began
    return seen


async def stop_amid(port: int, texts: Sequence[str], expected: Sequence[str], pid: int, a_second: float) -> Seen:
    """SIGTERM after a second of load; callers go on until nobody takes their connection."""
    seen, chance = Seen(), random.Random(1)

    async def caller() -> None:
        while True:
            queue = asyncio.Queue[tuple[list[str], list[str]] | None]()
            for _ in range(1000):
                queue.put_nowait(_request(chance, texts, expected))
            try:
                await _caller(port, queue, seen)
            except ConnectionRefusedError:
                return

    callers = [asyncio.ensure_future(caller()) for _ in range(32)]
    await asyncio.sleep(1.0)
    psutil.Process(pid).send_signal(signal.SIGTERM)
    await asyncio.gather(*callers)
    return seen


def _request(chance: random.Random, texts: Sequence[str], expected: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts, and the label of each."""
    _, count, times = chance.choices(KINDS, [share for share, _, _ in KINDS])[0]
    places = [chance.randrange(len(texts)) for _ in range(count)]
    return [times * texts[at] for at in places], [expected[at if times == 1 else len(texts) + at] for at in places]


async def _caller(port: int, queue: asyncio.Queue[tuple[list[str], list[str]] | None], seen: Seen) -> None:
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while (asked := await queue.get()) is not None:
        if connection is None:
            connection = await asyncio.open_connection("127.0.0.1", port)
        sent = time.perf_counter()
        try:
            status, told, kept = await call(*connection, "/v1/classify", json.dumps({"texts": asked[0]}).encode())
        except (OSError, IndexError, asyncio.IncompleteReadError) as error:
            seen.lost[type(error).__name__] += 1
            connection = None
            continue
        seen.statuses[status] += 1
        if status == 200:
            seen.latencies.append(time.perf_counter() - sent)
            seen.texts += len(asked[0])
            seen.right += sum(one["label"] == label for one, label in zip(json.loads(told)["results"], asked[1], strict=True))
        if not kept:
            connection[1].close()
            connection = None
    if connection is not None:
        connection[1].close()


if __name__ == "__main__":
    main()
