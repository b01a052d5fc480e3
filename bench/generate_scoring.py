"""Titles a second, every label's probability, beside transformers' generate: python -m bench.generate_scoring [--rows N] [--peer-rows N].

once: one `generate` a text, greedy, at most 16 new tokens. batched: 32 texts at once, padded on the left. All with the same prompt.
"""

from __future__ import annotations

from bench.generate_sides import CHINESE, given_arguments, write_rows
from bench.runs import conclude
from bench.side_by_side import Side, alternate, ours, peer, speed_ratio

GOALS = {"once": 15.0, "batched": 3.5}


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = given_arguments(__doc__ or "", 500)
    own, theirs = (write_rows("dev", rows, given.names, given.model) for rows in (given.rows, given.peer_rows))
    labels = ",".join(CHINESE.values() if given.names == "zh" else CHINESE)
    answers = ("generate_answers.py", theirs.resolve(), "--model", given.model, "--batch")
    sides = [
        Side("fenlei", ours("generate_score", own.resolve(), given.model, labels)),
        Side("once", peer(*answers, 1)),
        Side("batched", peer(*answers, 32)),
    ]
    measured = alternate(sides, given.rounds)
    ratios = {name: speed_ratio(measured, "fenlei", name) for name in GOALS}
    name, least = min(((name, ratios[name] / goal) for name, goal in GOALS.items()), key=lambda one: one[1])
    accuracies = {name: rounds[-1].more["accuracy"] for name, rounds in measured.items()}
    more = {f"against_{name}": round(value, 2) for name, value in ratios.items()}
    conclude(f"scoring {given.rows} titles over 10 labels, titles a second against generate ({name})", least * GOALS[name], GOALS[name],
             **more, accuracy=accuracies)  # fmt: skip


if __name__ == "__main__":
    main()
