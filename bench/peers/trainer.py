"""A sequence classifier trained with transformers.Trainer and PEFT, as their documentation shows it.

The settings decide whom this stands for: a plain Trainer in bfloat16 with dynamic padding, run_classification.py's defaults (float32,
every text padded to 128, 8 rows), or an old script (float32, padded to 512, 2 rows, gradient accumulation). Nothing of fenlei is imported.
Time runs from the end of the first optimiser step to the end of the last.
"""

import argparse
import json
import tempfile
import time

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)


class StepClock(TrainerCallback):
    """When each optimiser step ended."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        """Takes the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def peak_bytes(device):
    """Of the process, or of the GPU's tensors."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    with open("/proc/self/status", encoding="utf-8") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def parse():
    """The settings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--tuning", choices=["lora", "full"], default="lora")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--padding", choices=["longest", "max_length"], default="longest")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args()


def main():
    """Trains one epoch and prints the measured line."""
    given = parse()
    set_seed(42)
    with open(given.data, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    labels = sorted({row["label"] for row in rows})

    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForSequenceClassification.from_pretrained(given.model, num_labels=len(labels), dtype=getattr(torch, given.dtype))
    model.config.pad_token_id = tokenizer.pad_token_id
    if given.tuning == "lora":
        model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=16, lora_alpha=32, target_modules="all-linear"))

    padding = "max_length" if given.padding == "max_length" else False
    dataset = [
        {**tokenizer(row["text"], truncation=True, max_length=given.max_length, padding=padding), "labels": labels.index(row["label"])}
        for row in rows
    ]
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=given.batch_size,
            gradient_accumulation_steps=given.accumulation,
            learning_rate=3e-4 if given.tuning == "lora" else 2e-5,
            bf16=given.dtype == "bfloat16",
            use_cpu=given.device == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model=model, args=arguments, train_dataset=dataset, data_collator=DataCollatorWithPadding(tokenizer), callbacks=[clock]
        )
        loss = trainer.train().training_loss
    steps = len(clock.ends) - 1
    seconds = clock.ends[-1] - clock.ends[0]
    timed = steps * given.batch_size * given.accumulation
    print(json.dumps({"rows": timed, "seconds": seconds, "peak_bytes": peak_bytes(given.device), "loss": loss, "steps": steps}))


if __name__ == "__main__":
    main()
