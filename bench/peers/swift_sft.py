"""ms-swift's `swift sft --task_type seq_cls`, as its documentation shows it for classification, on a CPU.

Needs an environment with ms-swift: FENLEI_SWIFT names the folder of its `swift` command (python -m venv E;
E/bin/pip install ms-swift==4.6.0; FENLEI_SWIFT=E/bin). Its labels are integers: the rows are written anew so. Time runs from the end of
the first optimiser step to the end of the last, by the seconds a step in its own log.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

TEMPLATES = {"qwen2": "qwen2_5", "qwen3": "qwen3"}
"""What ms-swift wants to be told of a local model: its type, and the template of that type."""


def parse():
    """The settings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    return parser.parse_args()


def write_rows(data, target):
    """The rows as ms-swift reads them; returns their number and that of the labels."""
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").split("\n") if line]
    labels = sorted({row["label"] for row in rows})
    with target.open("w", encoding="utf-8") as file:
        for row in rows:
            turn = {"messages": [{"role": "user", "content": row["text"]}], "label": labels.index(row["label"])}
            file.write(json.dumps(turn, ensure_ascii=False) + "\n")
    return len(rows), len(labels)


def command(given, rows, labels, out):
    """The command line."""
    swift = str(Path(os.environ["FENLEI_SWIFT"]) / "swift")
    kind = json.loads((Path(given.model) / "config.json").read_text(encoding="utf-8"))["model_type"]
    options = {
        "model": given.model, "model_type": kind, "template": TEMPLATES[kind], "task_type": "seq_cls", "num_labels": labels,
        "dataset": rows, "use_cpu": "true", "torch_dtype": "bfloat16", "bf16": "true", "tuner_type": "lora", "lora_rank": 16,
        "lora_alpha": 32, "num_train_epochs": 1, "per_device_train_batch_size": given.batch_size, "gradient_accumulation_steps": 1,
        "split_dataset_ratio": 0, "eval_strategy": "no", "logging_steps": 1, "output_dir": out,
    }  # fmt: skip
    return [swift, "sft", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def seconds_after_the_first_step(out):
    """Steps and seconds after the first, and the last loss, from ms-swift's log."""
    log = next(out.rglob("logging.jsonl"))
    steps = [json.loads(line) for line in log.read_text(encoding="utf-8").split("\n") if line]
    ends = []
    for step in steps:
        if "train_speed(s/it)" in step and "loss" in step:
            number = int(str(step["global_step/max_steps"]).split("/")[0])
            ends.append(number * step["train_speed(s/it)"])
            loss = step["loss"]
    return len(ends) - 1, ends[-1] - ends[0], loss


def main():
    """Trains one epoch and prints the measured line."""
    given = parse()
    if "FENLEI_SWIFT" not in os.environ:
        sys.exit("set FENLEI_SWIFT to the bin folder of an environment with ms-swift")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = os.environ["FENLEI_SWIFT"] + os.pathsep + environment["PATH"]
    with tempfile.TemporaryDirectory() as folder:
        rows, out = Path(folder) / "rows.jsonl", Path(folder) / "out"
        environment["MODELSCOPE_CACHE"] = folder
        _, labels = write_rows(given.data, rows)
        done = subprocess.run(command(given, rows, labels, out), env=environment, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        steps, seconds, loss = seconds_after_the_first_step(out)
    peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"rows": steps * given.batch_size, "seconds": seconds, "peak_bytes": peak, "loss": loss, "steps": steps}))


if __name__ == "__main__":
    main()
