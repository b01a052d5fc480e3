"""The options of older scripts, and what they are called or why they do nothing here."""

from __future__ import annotations

DATA = frozenset({"data_path", "train_file", "dataset", "dataset_name", "input_path"})
"""What names the data: the command's argument here."""

SUBSET = "dataset_config_name"
"""Goes behind the data set's name."""

RENAMED = {
    "model_name_or_path": "--model",
    "model_revision": "--revision",
    "output_dir": "--out",
    "output_path": "--out",
    "validation_file": "--dev",
    "val_dataset": "--dev",
    "test_file": "--test",
    "text_column_name": "--text-column",
    "text_column_names": "--text-column",
    "label_column_name": "--label-column",
    "num_train_epochs": "--epochs",
    "model_max_length": "--max-length",
    "max_seq_length": "--max-length",
    "cutoff_len": "--max-length",
    "label_smoothing_factor": "--label-smoothing",
    "val_size": "--dev-ratio",
    "split_dataset_ratio": "--dev-ratio",
    "lora_r": "--lora-rank",
    "max_train_samples": "--max-train-rows",
    "max_samples": "--max-train-rows",
}

PER_STEP = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Multiplied: --batch-size."""

VALUES: dict[str, tuple[str, dict[str, str]]] = {
    "tuner_type": ("--tuning", {}),
    "train_type": ("--tuning", {}),
    "finetuning_type": ("--tuning", {"freeze": "frozen"}),
    "target_modules": ("--lora-targets", {}),
    "lora_target": ("--lora-targets", {"all": "all-linear"}),
    "early_stopping_steps": ("--early-stopping-patience", {}),
    "early_stop_interval": ("--early-stopping-patience", {}),
}
"""Options whose values have other names too."""

SWITCHES = {
    "gradient_checkpointing": ("--gradient-checkpointing", "--no-gradient-checkpointing"),
    "use_lora": ("--tuning lora", "--tuning full"),
    "use_cpu": ("--device cpu", ""),
    "no_cuda": ("--device cpu", ""),
    "use_hf": ("--source huggingface", "--source modelscope"),
    "resume_from_checkpoint": ("--resume", ""),
}
"""On and off."""

_CHECKPOINTS = "a checkpoint comes with each evaluation (--evals-per-epoch), and dev rows choose the one that is the run"
_CHOSEN = "the latest checkpoint within one standard error of the best macro F1 is the run"
_FORMAT = "the number format is chosen by device and said at the start"
_OPTIMISER = "the optimiser is AdamW with its usual moments"
_SEVERAL = "several processes are started by torchrun or accelerate launch, see docs/scale.md"
_PROMPT = "a head reads the bare text, or what --prompt says"
_EVALUATED = "dev rows are always measured, and test rows where there are any"
_SAMPLE = "all rows are used"
_LOADING = "rows are read and batched by fenlei"
_REPORT = "progress is shown on the terminal; --report-to names a tracker"

AS_IT_IS: dict[str, tuple[tuple[str, ...], str]] = {
    "is_training": (("true", "1"), "this command trains; `fenlei evaluate` and `fenlei predict` do the rest"),
    "do_train": (("true", "1"), "this command trains; `fenlei evaluate` and `fenlei predict` do the rest"),
    "evaluation_strategy": (("epoch",), "dev rows are measured every epoch (--evals-per-epoch), and choose the checkpoint"),
    "eval_strategy": (("epoch",), "dev rows are measured every epoch (--evals-per-epoch), and choose the checkpoint"),
    "lr_scheduler_type": (("cosine",), "the rate rises, then falls as a cosine"),
    "load_best_model_at_end": (("true", "1"), "dev rows choose the checkpoint that is the run"),
    "metric_for_best_model": (("macro_f1", "eval_macro_f1"), _CHOSEN),
    "greater_is_better": (("true", "1"), _CHOSEN),
    "task_type": (("seq_cls",), "fenlei classifies; --method generate asks the language model itself"),
    "problem_type": (("single_label_classification",), "what a row's labels are is read from the rows"),
    "save_strategy": (("epoch",), _CHECKPOINTS),
    "bias": (("none",), "adapters have no bias"),
    "stage": ((), "fenlei classifies; --method generate asks the language model itself"),
}
"""What fenlei does anyhow, by the values that say so; others are told why they are not followed."""

IGNORED = {
    **dict.fromkeys(("bf16", "fp16", "tf32", "torch_dtype", "dtype", "bf16_full_eval", "fp16_full_eval"), _FORMAT),
    **dict.fromkeys(("save_steps", "save_total_limit", "save_only_model", "save_safetensors", "overwrite_output_dir"), _CHECKPOINTS),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon", "optim"), _OPTIMISER),
    **dict.fromkeys(("deepspeed", "fsdp", "fsdp_config", "ddp_timeout", "ddp_find_unused_parameters", "local_rank"), _SEVERAL),
    **dict.fromkeys(("template", "use_chat_template", "system"), _PROMPT),
    **dict.fromkeys(
        ("do_eval", "do_predict", "eval_steps", "per_device_eval_batch_size", "eval_accumulation_steps", "metric_name"), _EVALUATED
    ),
    "num_labels": "the labels are those of the rows",
    "dataset_dir": "the data is named whole: a file, a folder, or hf:OWNER/NAME",
    **dict.fromkeys(("max_eval_samples", "max_predict_samples"), _SAMPLE),
    **dict.fromkeys(
        (
            "lazy_preprocess",
            "dataloader_num_workers",
            "dataset_num_proc",
            "preprocessing_num_workers",
            "overwrite_cache",
            "shuffle_train_dataset",
        ),
        _LOADING,
    ),
    **dict.fromkeys(
        ("logging_steps", "logging_strategy", "logging_dir", "logging_first_step", "run_name", "plot_loss", "disable_tqdm"), _REPORT
    ),
    "pad_to_max_length": "a batch is padded to its longest row",
    "group_by_length": "padding is left out on a CPU, and rows of like length share a step on a GPU",
    "truncation_strategy": "long texts are cut at their end and counted, and none is dropped",
    "text_column_delimiter": "columns are joined by a line break",
    "attn_impl": "chosen by device",
    "flash_attn": "chosen by device",
    "use_fast_tokenizer": "tokenizers are the fast ones",
    "trust_remote_code": "code from a hub is never run",
    "quantization_bit": "--tuning names what is trained, and how",
    "warmup_steps": "--warmup-ratio says it as a share of the steps",
    "push_to_hub": "`fenlei export RUN --push-to-hub OWNER/NAME` does it afterwards",
    "ignore_mismatched_sizes": "a head for other labels is always made anew",
    "cache_dir": "HF_HOME and MODELSCOPE_CACHE say where models are kept",
}
"""Why an option does nothing here."""

BOOLEANS = frozenset(
    {"bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "save_only_model", "save_safetensors", "overwrite_output_dir"}
    | {"use_chat_template", "do_train", "do_eval", "do_predict", "is_training", "lazy_preprocess", "overwrite_cache"}
    | {"shuffle_train_dataset", "logging_first_step", "plot_loss", "disable_tqdm", "pad_to_max_length", "group_by_length"}
    | {"use_fast_tokenizer", "trust_remote_code", "push_to_hub", "ignore_mismatched_sizes", "load_best_model_at_end"}
    | {"greater_is_better", "ddp_find_unused_parameters", *SWITCHES}
) - {"resume_from_checkpoint"}
"""Options that may stand alone, or before True or False."""

_PREDICT = frozenset({"input_path", "output_path", "text_column_name", "text_column_names"})
_ALL = DATA | {SUBSET, *RENAMED, *PER_STEP, *VALUES, *SWITCHES, *AS_IT_IS, *IGNORED}

COMMANDS = {"train": _ALL - {"input_path", "output_path"}, "predict": _PREDICT}
"""Which of them each command knows."""
