"""Bulk prediction of a million titles with nano: is the speed steady, and the memory flat? python -m bench.bulk_million [--rows N].

From row 10,000 on, in windows of 10,000 rows: the rate of the slower windows (5th percentile, so that one hiccup of the machine does not
decide) over the median rate, and the largest resident memory over that at row 10,000.
"""

from __future__ import annotations

import argparse
import json
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from bench.runs import WORK, conclude_all, head_of, lines_of, shared, trained
from bench.side_by_side import Side, alternate, ours

ROWS, WINDOW = 1_000_000, 10_000
STEADY = 0.9
TRAINED_ON = 2000


def varied(titles: Path, rows: int) -> Path:
    """`rows` rows with an id: the titles again and again, each time cut at another place, so that no text comes often."""
    target = WORK / "data" / f"varied_{rows}.jsonl"
    if not target.exists():
        texts = [json.loads(line)["text"] for line in lines_of(titles)]
        temporary = target.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            for number, text in enumerate(islice(cycle(texts), rows)):
                cut = number // len(texts) % max(1, len(text))
                file.write(json.dumps({"id": number, "text": f"{text[cut:]}{text[:cut]}"}, ensure_ascii=False) + "\n")
        temporary.replace(target)
    return target


def rates(seen: list[tuple[int, float, int]]) -> np.ndarray:
    """Rows a second of each window of WINDOW rows after the first; moments between two calls are interpolated."""
    rows, seconds = np.array([one[0] for one in seen]), np.array([one[1] for one in seen])
    marks = np.arange(WINDOW, rows[-1] + 1, WINDOW)
    return WINDOW / np.diff(np.interp(marks, rows, seconds))


def growth(seen: list[tuple[int, float, int]]) -> float:
    """The largest resident memory after the first window over that at its end."""
    after = [memory for rows, _, memory in seen if rows >= WINDOW]
    return max(after) / after[0]


def main() -> None:
    """Prints the course; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args().rows
    data = shared() / "data" / "thucnews10"
    trained("thucnews_nano_2000", head_of(data / "train.jsonl", TRAINED_ON), data / "dev.jsonl", model="nano", tuning="full", epochs=10)
    source = varied(data / "train.jsonl", rows)
    target = WORK / "data" / "varied_predicted.jsonl"
    side = Side("fenlei", ours("bulk", WORK / "thucnews_nano_2000", source, target))
    seen = alternate([side], rounds=1)["fenlei"][0].more["seen"]
    target.unlink()
    found = rates(seen)
    for at in range(0, len(found), max(1, len(found) // 10)):
        memory = next(one[2] for one in seen if one[0] >= (at + 1) * WINDOW)
        print(f"  row {(at + 1) * WINDOW:,}: {found[at]:,.0f} rows/s, {memory / 1e6:,.0f} MB")
    median = float(np.median(found))
    conclude_all(
        f"bulk prediction of {rows:,} rows",
        {
            "slow windows over the median rate": (float(np.percentile(found, 5)) / median, STEADY),
            "flat memory": (1 / growth(seen), 1 / 1.1),
        },
        rows_a_second=round(median),
        slowest=round(float(found.min()) / median, 4),
        last_tenth_over_first=round(float(np.median(found[-len(found) // 10 :]) / np.median(found[: max(1, len(found) // 10)])), 4),
    )


if __name__ == "__main__":
    main()
