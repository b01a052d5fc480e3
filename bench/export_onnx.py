"""ONNX Runtime beside torch on the real model: python -m bench.export_onnx [--rounds N] [--quick].

Texts a second of the exported graph in float32 and in 8-bit integers, and of the run in torch's bfloat16 and int8; the labels that each
shares with the run, and its accuracy.
"""

from __future__ import annotations

from pathlib import Path

from bench.prediction import OURS, QUICK_ROWS, agreement, titles_run
from bench.runs import conclude, head_of, shared
from bench.side_by_side import Side, alternate, arguments, ours, speed_ratio
from fenlei.data.readers import read_examples
from fenlei.export.onnx_folder import export_onnx

ROWS, COMPARED = 1024, 256
SAME_LABELS = 0.995
FLOAT32, INT8, OURS_INT8 = "ONNX Runtime, float32", "ONNX Runtime, int8", "fenlei, int8"


def exported(run: Path, data: Path, *, int8: bool) -> Path:
    """`run` as a folder for ONNX Runtime, made once."""
    target = run.with_name(f"{run.name}_onnx{'_int8' if int8 else ''}")
    if not target.exists():
        rows = list(read_examples(head_of(data, COMPARED)))
        texts, gold = [one.text for one in rows], [str(one.label) for one in rows]
        print(f"  {export_onnx(run, target, int8=int8, texts=texts, gold=gold)}", flush=True)
    return target


def main() -> None:
    """Prints the rounds; the last line is JSON."""
    given = arguments(__doc__ or "")
    dev = shared() / "data" / "thucnews10" / "dev.jsonl"
    run = titles_run(quick=given.quick)
    asked = head_of(dev, QUICK_ROWS if given.quick else ROWS)
    sides = [
        Side(OURS, ours("predict", run, asked)),
        Side(OURS_INT8, ours("predict", run, asked, "--int8")),
        Side(FLOAT32, ours("onnx", exported(run, dev, int8=False), asked)),
        Side(INT8, ours("onnx", exported(run, dev, int8=True), asked)),
    ]
    measured = alternate(sides, given.rounds)
    others = [side.name for side in sides[1:]]
    conclude(
        "labels of ONNX Runtime in float32 that are the run's", round(agreement(measured, FLOAT32, OURS), 4), SAME_LABELS,
        times_our_bfloat16={name: round(speed_ratio(measured, name, OURS), 3) for name in others},
        same_label={name: round(agreement(measured, name, OURS), 4) for name in others},
        accuracy={side.name: round(float(measured[side.name][0].more["accuracy"]), 4) for side in sides},
    )  # fmt: skip


if __name__ == "__main__":
    main()
