"""What other programs call the options of a run: transformers, ms-swift, LLaMA-Factory and older scripts."""

from __future__ import annotations

import difflib
from collections.abc import Collection

RENAMED = {
    "lr": "learning_rate",
    "model_name_or_path": "model",
    "model_revision": "revision",
    "validation_file": "dev",
    "test_file": "test",
    "text_column_name": "text_column",
    "text_column_names": "text_column",
    "label_column_name": "label_column",
    "num_train_epochs": "epochs",
    "model_max_length": "max_length",
    "max_seq_length": "max_length",
    "cutoff_len": "max_length",
    "label_smoothing_factor": "label_smoothing",
    "tuner_type": "tuning",
    "train_type": "tuning",
    "finetuning_type": "tuning",
    "lora_r": "lora_rank",
    "target_modules": "lora_targets",
    "lora_target": "lora_targets",
    "early_stopping_steps": "early_stopping_patience",
    "early_stop_interval": "early_stopping_patience",
    "max_train_samples": "max_train_rows",
    "max_samples": "max_train_rows",
}
"""Another name, and no more."""

OTHERWISE = {
    "data_path": "data",
    "train_file": "data",
    "dataset": "data",
    "dataset_name": "data",
    "val_dataset": "dev",
    "eval_dataset": "dev",
    "val_size": "dev_ratio",
    "split_dataset_ratio": "dev_ratio",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "batch_size",
    "warmup_steps": "warmup_ratio",
    "eval_steps": "evals_per_epoch",
    "save_steps": "evals_per_epoch",
    "use_lora": "tuning",
    "quantization_bit": "tuning",
    "quant_bits": "tuning",
    "truncation_strategy": "long",
    "use_cpu": "device",
    "no_cuda": "device",
    "use_hf": "source",
}
"""The same is said with another value."""

OF_THE_CALL = {"out": "out", "output_dir": "out", "resume": "resume", "resume_from_checkpoint": "resume"}
"""What is no option of a run but an argument of the one who starts it."""


def meant(name: str, known: Collection[str]) -> str | None:
    """Which of the options `known` was meant: the one that others call so, else the one that is spelled most alike; None if none is."""
    called = RENAMED.get(name) or OTHERWISE.get(name, "")
    return called if called in known else next(iter(difflib.get_close_matches(name, known, n=1)), None)
