"""nano on whole news articles (sogou10_long), beside TF-IDF: python -m bench.nano_sogou."""

from __future__ import annotations

from bench.runs import conclude, run, shared


def main() -> None:
    """Prints the figures; the last line is JSON."""
    data = shared() / "data" / "sogou10_long"
    evaluation, seconds = run(
        "sogou_nano", data / "train.jsonl", data / "dev.jsonl", model="nano", tuning="full", max_length=512, long="truncate", epochs=6
    )
    assert evaluation.baseline
    print(f"accuracy {evaluation.metrics.accuracy:.4f}, TF-IDF {evaluation.baseline.accuracy:.4f}, {seconds:.0f} s")
    conclude("nano on sogou10_long, accuracy against TF-IDF's", evaluation.metrics.accuracy / evaluation.baseline.accuracy, 1.0)


if __name__ == "__main__":
    main()
