"""The options of older scripts, and what they are called or why they do nothing here."""

from __future__ import annotations

from fenlei.config import synonyms


def _called(option: str) -> tuple[str, ...]:
    """What others call an option, where they say its value otherwise."""
    return tuple(name for name, meant in synonyms.OTHERWISE.items() if meant == option)


RUN = "adapters"
"""What names the run to predict with: the first argument here."""

DATA: dict[str, tuple[str, ...]] = {"train": _called("data"), "predict": ("input_path", "val_dataset")}
"""What names the data: the command's argument here."""

DEV = _called("dev")
"""What names dev rows as the data is named: --dev."""

HUB_IDS = frozenset({"dataset", *DEV})
"""What takes OWNER/NAME for a data set on a hub."""

SUBSET = "dataset_config_name"
"""Goes behind the data set's name."""

RENAMED = {
    **{name: f"--{option.replace('_', '-')}" for name, option in synonyms.RENAMED.items()},
    **dict.fromkeys(("output_dir", "output_path", "result_path"), "--out"),
}
"""Another name, and the value goes behind it."""

VALUES = {("finetuning_type", "freeze"): "frozen", ("lora_target", "all"): "all-linear"}
"""Values of renamed options that have other names too."""

LISTS = frozenset({"target_modules", "modules_to_save"})
"""Options that take several words."""

PER_STEP = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Multiplied: --batch-size."""

DEV_SHARES = _called("dev_ratio")
"""--dev-ratio, where they say a share of the rows and no file has the dev rows."""

BITS = ("quantization_bit", "quant_bits")
"""Four of them below LoRA: --tuning qlora."""

TOGETHER = frozenset({*PER_STEP, *DEV_SHARES, *BITS})
"""What is understood beside other options only."""

TRAIN_ALL = frozenset({"is_training", "train_file", "dataset_name"})
"""One of them is in every command of a script that trains all weights unless it is told of LoRA: of LLM-TextClassification's, and of
run_classification.py, which says `do_train` too, but so does LLaMA-Factory, and means LoRA.
"""

SWITCHES = {
    "gradient_checkpointing": ("--gradient-checkpointing", "--no-gradient-checkpointing"),
    "use_lora": ("--tuning lora", "--tuning full"),
    "use_cpu": ("--device cpu", ""),
    "no_cuda": ("--device cpu", ""),
    "use_hf": ("--source huggingface", "--source modelscope"),
    "resume_from_checkpoint": ("--resume", ""),
}
"""On and off."""

WORDS = {("problem_type", "multi_label_classification"): "--multi-label", ("truncation_strategy", "right"): "--long truncate"}
"""What single values of an option mean, whose others do nothing here."""

REFUSED = {"do_regression": ("true", "1", "yes"), "problem_type": ("regression",)}
"""Values that ask for numbers in place of classes."""

SECRETS = frozenset({"token"})
"""Options whose values are not to be shown."""

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
_SPLIT = "name the split with the data set: hf:OWNER/NAME:SPLIT, or hf:OWNER/NAME:SUBSET/SPLIT; --dev and --test take such names too"
_COLUMNS = "only the columns that are needed are read"
_FOUR_BITS = "--tuning qlora keeps the backbone in 4-bit NormalFloat, its scales quantised once more, through bitsandbytes"
_NOTHING_GENERATED = "the answers are labels, and no text is generated"

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
    "do_regression": (("false", "0", "no"), "fenlei classifies"),
    "problem_type": (("single_label_classification",), "what a row's labels are is read from the rows"),
    "save_strategy": (("epoch",), _CHECKPOINTS),
    "train_split_name": (("train",), _SPLIT),
    "validation_split_name": (("validation", "valid", "val", "dev"), _SPLIT),
    "test_split_name": (("test",), _SPLIT),
    "quant_method": (("bnb",), _FOUR_BITS),
    "quantization_method": (("bnb",), _FOUR_BITS),
    "bnb_4bit_quant_type": (("nf4",), _FOUR_BITS),
    "bnb_4bit_use_double_quant": (("true", "1"), _FOUR_BITS),
    "bias": (("none",), "adapters have no bias"),
    "stage": ((), "fenlei classifies; --method generate asks the language model itself"),
}
"""What fenlei does anyhow, by the values that say so; others are told why they are not followed."""

IGNORED = {
    **dict.fromkeys(("bf16", "fp16", "tf32", "torch_dtype", "dtype", "bf16_full_eval", "fp16_full_eval"), _FORMAT),
    **dict.fromkeys(("bnb_4bit_compute_dtype", "pure_bf16"), _FORMAT),
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
            "load_from_cache_file",
            "dataloader_num_workers",
            "dataset_num_proc",
            "preprocessing_num_workers",
            "overwrite_cache",
            "shuffle_train_dataset",
            "packing",
        ),
        _LOADING,
    ),
    **dict.fromkeys(
        ("logging_steps", "logging_strategy", "logging_dir", "logging_first_step", "run_name", "plot_loss", "disable_tqdm"), _REPORT
    ),
    "include_num_input_tokens_seen": _REPORT,
    "remove_splits": _SPLIT,
    **dict.fromkeys(("remove_columns", "remove_unused_columns"), _COLUMNS),
    "shuffle_seed": "rows are shuffled by --seed",
    **dict.fromkeys(("config_name", "tokenizer_name"), "configuration and tokenizer are those of --model"),
    "token": "HF_TOKEN and MODELSCOPE_API_TOKEN hold tokens, see docs/hubs.md",
    "modules_to_save": "a head is trained whole beside the adapters, and nothing else is",
    "gradient_checkpointing_kwargs": "--gradient-checkpointing takes no more options",
    "pad_to_max_length": "a batch is padded to its longest row",
    "group_by_length": "a decoder on a CPU computes nothing of padding; else rows of like length share a step",
    "truncation_strategy": "long texts are read in windows or shortened, as --long says, and counted; none is dropped",
    "text_column_delimiter": "columns are joined by a line break",
    "attn_impl": "chosen by device",
    "flash_attn": "chosen by device",
    "use_fast_tokenizer": "tokenizers are the fast ones",
    "trust_remote_code": "code from a hub is never run",
    "warmup_steps": "--warmup-ratio says it as a share of the steps",
    "push_to_hub": "`fenlei export RUN --push-to-hub OWNER/NAME` does it afterwards",
    "ignore_mismatched_sizes": "a head for other labels is always made anew",
    "enable_thinking": "a label is answered without thinking",
    "resize_vocab": "the vocabulary stays as it is",
    "cache_dir": "HF_HOME and MODELSCOPE_CACHE say where models are kept",
}
"""Why an option does nothing here."""

IGNORED_BY_PREDICT = {
    "load_data_args": "name the file to predict: fenlei predict RUN FILE",
    "max_batch_size": "texts are batched by their tokens",
    "infer_backend": "the run itself answers; `fenlei export` writes a folder for vLLM",
    "truncation_strategy": "a run reads long texts as it was trained to, and what is cut is counted",
    **dict.fromkeys(("stream", "max_new_tokens", "temperature"), _NOTHING_GENERATED),
}
"""The same of `fenlei predict`."""

BOOLEANS = frozenset(
    {"bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "save_only_model", "save_safetensors", "overwrite_output_dir"}
    | {"use_chat_template", "do_train", "do_eval", "do_predict", "is_training", "lazy_preprocess", "overwrite_cache"}
    | {"load_from_cache_file", "remove_unused_columns", "do_regression", "bnb_4bit_use_double_quant", "load_data_args", "stream"}
    | {"shuffle_train_dataset", "logging_first_step", "plot_loss", "disable_tqdm", "pad_to_max_length", "group_by_length"}
    | {"use_fast_tokenizer", "trust_remote_code", "push_to_hub", "ignore_mismatched_sizes", "load_best_model_at_end"}
    | {"greater_is_better", "ddp_find_unused_parameters", "packing", "enable_thinking", "include_num_input_tokens_seen", "pure_bf16"}
    | {"resize_vocab", *SWITCHES}
) - {"resume_from_checkpoint"}
"""Options that may stand alone, or before True or False."""

_OUTPUTS = frozenset({"output_path", "result_path"})
_TRAIN = frozenset({*DATA["train"], *DEV, SUBSET, *RENAMED, *TOGETHER, *SWITCHES, *AS_IT_IS, *IGNORED}) - _OUTPUTS
_PREDICT = _OUTPUTS | {RUN, *DATA["predict"], "text_column_name", "text_column_names", *IGNORED_BY_PREDICT}

COMMANDS = {"train": _TRAIN, "predict": _PREDICT}
"""Which of them each command knows."""
