"""Instruction tuning as transformers' documentation shows it: a plain Trainer with DataCollatorForSeq2Seq and PEFT, bfloat16.

The prompt stands in each row, batches are padded to their longest row, logits are computed for whole sequences, and the loss is that of the
answer alone. Nothing of fenlei is imported. Time runs from the end of the first optimiser step to the end of the last.
"""

import argparse
import json
import tempfile
import time

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments, set_seed


class StepClock(TrainerCallback):
    """When each optimiser step ended."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        """Takes the time."""
        self.ends.append(time.perf_counter())


def main():
    """Trains one epoch and prints the measured line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    given = parser.parse_args()
    set_seed(42)
    with open(given.data, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(task_type=TaskType.CAUSAL_LM, r=16, lora_alpha=32, target_modules="all-linear"))
    dataset = []
    for row in rows:
        prompt = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["answer"], add_special_tokens=False)["input_ids"]
        ids = prompt + answer
        dataset.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * len(prompt) + answer})
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=given.batch_size, learning_rate=3e-4, bf16=True,
            use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
        trainer = Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collator, callbacks=[clock])
        loss = trainer.train().training_loss
    with open("/proc/self/status", encoding="utf-8") as status:
        peak = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    steps = len(clock.ends) - 1
    seconds = clock.ends[-1] - clock.ends[0]
    print(json.dumps({"rows": steps * given.batch_size, "seconds": seconds, "peak_bytes": peak, "steps": steps, "loss": loss}))


if __name__ == "__main__":
    main()
