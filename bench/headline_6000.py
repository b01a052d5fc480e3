"""Qwen2.5-0.5B on the first 6,000 news titles beside TF-IDF: python -m bench.headline_6000 [lora] [full] [OPTION=VALUE ...] [--rows N].

Both tunings with their defaults; an option of fenlei.train tries something else, in a run of its own. A run that is cut off is
taken up again.
"""

from __future__ import annotations

import argparse

from bench.runs import conclude, conclude_all, given_options, head_of, name_of, real_model, run, shared

ROWS, EPOCHS, SELECTING = 6000, 1, 2000
LORA_GOAL, FULL_BEHIND = 0.885, 0.005


def main() -> None:
    """Prints the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="TUNING|OPTION=VALUE")
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_intermixed_args()
    tunings = [word for word in given.words if word in ("lora", "full")] or ["lora", "full"]
    asked = given_options([word for word in given.words if "=" in word])
    options = {"epochs": EPOCHS, **asked}
    data = shared() / "data" / "thucnews10"
    # The whole dev measures; a part of it selects and calibrates, as the whole at every evaluation would cost as much as the training.
    train, dev = head_of(data / "train.jsonl", given.rows), data / "dev.jsonl"
    accuracy: dict[str, float] = {}
    for tuning in tunings:
        name = name_of(f"titles_{given.rows}_{tuning}", asked)
        evaluation, seconds = run(
            name, train, dev, selecting=head_of(dev, SELECTING), model=real_model(), tuning=tuning, evals_per_epoch=2, **options
        )
        assert evaluation.baseline
        accuracy[tuning], accuracy["TF-IDF"] = evaluation.metrics.accuracy, evaluation.baseline.accuracy
        print(f"{name}: accuracy {accuracy[tuning]:.4f}, TF-IDF {accuracy['TF-IDF']:.4f}, {seconds:.0f} s", flush=True)
    figures = {name: round(value, 4) for name, value in accuracy.items()}
    goals = {"lora": LORA_GOAL, "full": accuracy["lora"] - FULL_BEHIND} if "lora" in accuracy else {}
    if goals:
        conclude_all(f"Qwen2.5-0.5B on {given.rows} titles", {one: (accuracy[one], goals[one]) for one in tunings}, accuracy=figures)
    else:  # what full tuning is held against was not asked for
        conclude(f"Qwen2.5-0.5B on {given.rows} titles, full, over TF-IDF", accuracy["full"], accuracy["TF-IDF"], accuracy=figures)


if __name__ == "__main__":
    main()
