"""The audit on news titles with faults planted: how many it finds, what else it names, and what all rows cost.

python -m bench.audit_thucnews [planted | cost]   (without a word: both)
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.runs import WORK, conclude_all, shared
from fenlei.audit.audit import audit_data
from fenlei.audit.document import to_document

ROWS, TEST_ROWS = 20_000, 2_000
FLIPPED, NEAR, LEAKED = 0.02, 500, 200
SUSPECTS_READ = 0.06
MARKS = "，。！？；：、…!?"
MOST_SECONDS, MOST_BYTES = 120, 2e9

Row = dict[str, Any]


def planted(seed: int) -> tuple[Path, Path]:
    """A train file and a test file; each row says in `planted` what was done to it, and in `of` which row of the original it is."""
    dice = random.Random(seed)
    titles = [json.loads(line) for line in (shared() / "data" / "thucnews10" / "train.jsonl").open(encoding="utf-8")]
    dice.shuffle(titles)
    train = [{**row, "planted": "", "of": place} for place, row in enumerate(titles[:ROWS])]
    test = [{**row, "planted": "", "of": None} for row in titles[ROWS : ROWS + TEST_ROWS]]
    labels = sorted({row["label"] for row in train})
    for row in dice.sample(train, round(FLIPPED * ROWS)):
        row |= {"planted": "flip", "label": dice.choice([label for label in labels if label != row["label"]])}
    clean = [row for row in train if not row["planted"]]
    chosen = dice.sample(clean, NEAR + LEAKED)
    characters = [one for row in clean for one in row["text"]]
    copies = [{**row, "text": changed(row["text"], characters, dice), "planted": "near"} for row in chosen[:NEAR]]
    train, test = [*train, *copies], [*test, *({**row, "planted": "leak"} for row in chosen[NEAR:])]
    files = []
    for name, rows in (("train", train), ("test", test)):
        dice.shuffle(rows)
        files.append(WORK / "data" / f"audit_{name}.jsonl")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return files[0], files[1]


def changed(text: str, characters: list[str], dice: random.Random) -> str:
    """`text` with one character changed, or two, or a mark added."""
    written = list(text)
    kind = dice.choice(("one", "two", "mark"))
    if kind == "mark":
        written.insert(dice.randrange(len(written) + 1), dice.choice(MARKS))
        return "".join(written)
    for place in dice.sample(range(len(written)), 1 if kind == "one" else 2):
        written[place] = dice.choice([one for one in dice.sample(characters, 5) if one != written[place]])
    return "".join(written)


def find_planted(seed: int) -> dict[str, float]:
    """What was found of each kind, and the share of clean rows that were named as copies, in either place of a pair."""
    train_file, test_file = planted(seed)
    rows = {str(file): [json.loads(line) for line in file.open(encoding="utf-8")] for file in (train_file, test_file)}
    found = to_document(audit_data(train_file, test=test_file))

    def row_at(place: Row) -> Row:
        return rows[place["file"]][place["row"] - 1]

    near = [(row_at(one), row_at(one["of"])) for kind in ("near_duplicates", "duplicates") for one in found[kind]["rows"]]
    pairs_found = {one["of"] for one, other in near if one["of"] == other["of"]}
    involved = {row["of"] for pair in near for row in pair}
    made = {row["of"] for row in rows[str(train_file)] if row["planted"] == "near"}
    leaks = [row_at(one) for one in found["leaks"]["rows"]]
    suspects = [row_at(one) for one in found["label_errors"]["rows"]][: round(SUSPECTS_READ * ROWS)]
    return {
        "near_found": len(made & pairs_found) / NEAR,
        "near_clean_flagged": len(involved - made) / (ROWS - NEAR),
        "leaks_found": sum(row["planted"] == "leak" for row in leaks) / LEAKED,
        "leaks_clean_flagged": sum(row["planted"] != "leak" for row in leaks) / TEST_ROWS,
        "flips_found": sum(row["planted"] == "flip" for row in suspects) / round(FLIPPED * ROWS),
        "estimated_errors": found["label_errors"]["estimated"],
    }


def cost() -> dict[str, float]:
    """Seconds and peak memory of the command on all rows, in a process of its own; CPU seconds tell of a machine that others use."""
    data = shared() / "data" / "thucnews10" / "train.jsonl"
    began = time.perf_counter()
    command = [sys.executable, "-m", "fenlei", "audit", str(data), "--json"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss if sys.platform == "darwin" else used.ru_maxrss * 1024
    rows = json.loads(printed)["parts"]["train"]
    return {"rows": rows, "seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_bytes": peak}


def main() -> None:
    """Prints the figures; the last line is JSON."""
    wanted = sys.argv[1:] or ["planted", "cost"]
    goals: dict[str, tuple[float, float]] = {}
    if "planted" in wanted:
        figures = [find_planted(seed) for seed in (0, 1, 2)]
        for name in figures[0]:
            print(f"{name:20} " + "  ".join(f"{one[name]:.4f}" for one in figures))
        worst = {name: (max if "clean" in name else min)(one[name] for one in figures) for name in figures[0]}
        goals["flips found in the first 6 %, worst of 3"] = (worst["flips_found"], 0.80)
        goals["leaks found, worst of 3"] = (worst["leaks_found"], 0.98)
        goals["clean rows not named, worst of 3"] = (1 - worst["near_clean_flagged"], 0.99)
        goals["near duplicates found, worst of 3"] = (worst["near_found"], 0.98)
    if "cost" in wanted:
        spent = cost()
        print(f"{spent['rows']:,} rows: {spent['seconds']:.1f} s, {spent['cpu_seconds']:.1f} s of CPU, {spent['peak_bytes'] / 1e9:.2f} GB")
        goals["2 minutes over the time of all rows"] = (MOST_SECONDS / spent["seconds"], 1.0)
        goals["2 GB over the peak memory of all rows"] = (MOST_BYTES / spent["peak_bytes"], 1.0)
    conclude_all("audit", goals)


if __name__ == "__main__":
    main()
