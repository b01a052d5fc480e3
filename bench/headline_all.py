"""Qwen2.5-0.5B, LoRA, on all news titles, two epochs, beside TF-IDF: python -m bench.headline_all [OPTION=VALUE ...].

Hours on a small machine: a checkpoint is left eight times an epoch, and the command takes the run up again where it was cut off.
"""

from __future__ import annotations

import sys

from bench.runs import conclude, given_options, head_of, name_of, real_model, run, shared

GOAL, SELECTING = 0.938, 2000


def main() -> None:
    """Prints the figures; the last line is JSON."""
    asked = given_options(sys.argv[1:])
    data = shared() / "data" / "thucnews10"
    train, dev = data / "train.jsonl", data / "dev.jsonl"
    options = {"tuning": "lora", "epochs": 2, "evals_per_epoch": 8, **asked}
    evaluation, seconds = run(
        name_of("titles_all_lora", asked), train, dev, selecting=head_of(dev, SELECTING), model=real_model(), **options
    )
    assert evaluation.baseline
    accuracy, baseline = evaluation.metrics.accuracy, evaluation.baseline.accuracy
    print(f"accuracy {accuracy:.4f}, TF-IDF {baseline:.4f}, {seconds:.0f} s")
    conclude("Qwen2.5-0.5B, LoRA, all titles: accuracy", accuracy, GOAL, baseline=round(baseline, 4))


if __name__ == "__main__":
    main()
