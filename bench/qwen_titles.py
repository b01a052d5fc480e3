"""A real Qwen2.5-0.5B, LoRA and head, on the first rows of the news titles, beside TF-IDF: python -m bench.qwen_titles [ROWS]."""

from __future__ import annotations

import sys

from bench.runs import conclude, head_of, real_model, run, shared


def main() -> None:
    """Prints the figures; the last line is JSON."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    data = shared() / "data" / "thucnews10"
    # One epoch, and a dev of 2,000 rows: the whole of it costs as much as the training.
    dev = head_of(data / "dev.jsonl", 2000)
    evaluation, seconds = run(f"qwen_titles_{rows}", head_of(data / "train.jsonl", rows), dev, model=real_model(), tuning="lora", epochs=1)
    assert evaluation.baseline
    print(f"accuracy {evaluation.metrics.accuracy:.4f}, TF-IDF {evaluation.baseline.accuracy:.4f}, {seconds:.0f} s")
    conclude(
        f"Qwen2.5-0.5B, LoRA, {rows} titles, accuracy against TF-IDF's",
        evaluation.metrics.accuracy / evaluation.baseline.accuracy,
        1.0,
        accuracy=round(evaluation.metrics.accuracy, 4),
    )


if __name__ == "__main__":
    main()
