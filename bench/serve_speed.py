"""The service beside a plain FastAPI endpoint that calls the model once a request, and beside infinity on the same merged folder.

python -m bench.serve_speed [--model nano|real] [--seconds N] [--rounds N] [--quick] [SIDE ...]

One title a request; texts a second and latencies at 1, 8, 32 and 128 connections, all sides in each round. infinity (infinity-emb 0.0.78
with transformers 4.57) runs in an environment of its own: FENLEI_INFINITY is its folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.runs import conclude_all
from bench.serving import Answered, Server, closed_loop, fenlei_server, model_run, serving
from bench.side_by_side import PEERS
from fenlei.export.merged import export_merged

PLAIN, INFINITY = "plain endpoint", "infinity"
CONNECTIONS = (1, 8, 32, 128)
BUSY = 32
"""Connections at which the goals are set."""
TIMES_PLAIN, TIMES_INFINITY, MOST_SLOWER = 5.0, 3.0, 1.1
WARM_SECONDS = 2.0

Measured = dict[tuple[str, int], list[Answered]]
"""(side, connections) -> its rounds."""


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs="*", metavar="SIDE", help=f"of '{PLAIN}', {INFINITY}; default: those that are there")
    parser.add_argument("--model", choices=("nano", "real"), default="real")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two seconds, one round: only shows that it runs")
    given = parser.parse_intermixed_args()
    if given.quick:
        given.rounds, given.seconds = 1, 2.0
    run, texts = model_run(given.model, quick=given.quick)
    merged = run.with_name(f"{run.name}_merged")
    if not merged.exists():
        export_merged(run, merged, texts=texts[:64])
    measured = measure(sides(run, merged, given.sides), texts, given.rounds, given.seconds)
    conclude_all(
        f"the service, {given.model}", goals(measured), texts_a_second={f"{side} {at}": rate(measured, side, at) for side, at in measured}
    )


def sides(run: Path, merged: Path, wanted: Sequence[str]) -> list[Server]:
    """Ours, and of the others those that are wanted or there."""
    found = [fenlei_server(run)]
    if not wanted or PLAIN in wanted:
        command = (sys.executable, str(PEERS / "plain_endpoint.py"), str(merged), "{port}")
        found.append(Server(PLAIN, command, "/classify", "text", bare=True))
    if INFINITY in wanted or (not wanted and "FENLEI_INFINITY" in os.environ):
        if "FENLEI_INFINITY" not in os.environ:
            sys.exit("set FENLEI_INFINITY to the folder of an environment that holds infinity-emb")
        program = str(Path(os.environ["FENLEI_INFINITY"]) / "bin" / "infinity_emb")
        options = ("--device", "cpu", "--dtype", "bfloat16", "--engine", "torch", "--no-bettertransformer", "--no-compile")
        command = (program, "v2", "--model-id", str(for_transformers_4(merged)), "--port", "{port}", *options)
        found.append(Server(INFINITY, command, "/classify", "input"))
    return found


def for_transformers_4(merged: Path) -> Path:
    """The same folder with the keys that transformers 4 has for what 5 writes otherwise."""
    target = merged.with_name(f"{merged.name}_for_4")
    if not target.exists():
        shutil.copytree(merged, target)
        config = json.loads((target / "config.json").read_text(encoding="utf-8"))
        config["torch_dtype"] = config.get("dtype", "bfloat16")
        config["rope_theta"] = config.get("rope_parameters", {}).get("rope_theta", 10_000.0)
        (target / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")
    return target


def measure(servers: Sequence[Server], texts: Sequence[str], rounds: int, seconds: float) -> Measured:
    """Every side in each round, each at every number of connections."""
    measured: Measured = {(server.name, at): [] for server in servers for at in CONNECTIONS}
    for number in range(rounds):
        for server in servers:
            with serving(server) as (_, port):
                asyncio.run(closed_loop(port, server, texts, 8, WARM_SECONDS))
                for at in CONNECTIONS:
                    found = asyncio.run(closed_loop(port, server, texts, at, seconds))
                    measured[server.name, at].append(found)
                    times = " ".join(f"p{round(100 * share)} {1000 * found.quantile(share):.0f} ms" for share in (0.5, 0.95, 0.99))
                    others = {status: count for status, count in found.statuses.items() if status != 200}
                    print(
                        f"round {number + 1}/{rounds}  {server.name}, {at}: {found.a_second:.1f} texts/s, {times} {others or ''}",
                        flush=True,
                    )
    return measured


def rate(measured: Measured, side: str, at: int) -> float:
    """Texts a second: the median over rounds."""
    return round(statistics.median(one.a_second for one in measured[side, at]), 2)


def goals(measured: Measured) -> dict[str, tuple[float, float]]:
    """Each figure with its goal: the medians of the rounds' ratios."""

    def times(other: str) -> float:
        pairs = zip(measured["fenlei", BUSY], measured[other, BUSY], strict=True)
        return statistics.median(one.a_second / two.a_second for one, two in pairs)

    found = {}
    there = {side for side, _ in measured}
    if PLAIN in there:
        found[f"times the {PLAIN} at {BUSY}"] = (times(PLAIN), TIMES_PLAIN)
        pairs = zip(measured[PLAIN, 1], measured["fenlei", 1], strict=True)
        slower = statistics.median(plain.quantile(0.5) / own.quantile(0.5) for plain, own in pairs)
        found[f"{PLAIN}'s p50 at 1 over ours"] = (slower, 1 / MOST_SLOWER)
    if INFINITY in there:
        found[f"times {INFINITY} at {BUSY}"] = (times(INFINITY), TIMES_INFINITY)
    return found


if __name__ == "__main__":
    main()
