"""Command lines of older scripts: what they mean here, and that the two of S1 run as they stand."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from fenlei.cli.main import main
from fenlei.cli.older import translate
from fenlei.cli.older_options import AS_IT_IS, BOOLEANS, COMMANDS, IGNORED, RENAMED
from fenlei.cli.options import HELP
from fenlei.errors import ConfigError

ROOT = Path(__file__).parents[1]

S1_FULL = """
  --model_name_or_path $MODEL \
  --is_training True \
  --data_path $DATA \
  --bf16 True \
  --output_dir output_qwen/longnews \
  --num_train_epochs 3 \
  --per_device_train_batch_size 2 \
  --per_device_eval_batch_size 1 \
  --gradient_accumulation_steps 2 \
  --evaluation_strategy "no" \
  --save_strategy "steps" \
  --save_steps 2000 \
  --save_total_limit 10 \
  --learning_rate 3e-4 \
  --weight_decay 0.1 \
  --adam_beta2 0.95 \
  --warmup_ratio 0.01 \
  --lr_scheduler_type "cosine" \
  --logging_steps 1 \
  --report_to "none" \
  --model_max_length 512 \
  --lazy_preprocess True \
  --gradient_checkpointing"""
S1_LORA = S1_FULL + " --use_lora"

MS_SWIFT = """
  --model Qwen/Qwen2.5-0.5B --tuner_type lora --task_type seq_cls --num_labels 14 --problem_type multi_label_classification \
  --dataset owner/titles-v1.1:news#500 --load_from_cache_file true --split_dataset_ratio 0.05 --torch_dtype bfloat16 \
  --num_train_epochs 2 --per_device_train_batch_size 4 --per_device_eval_batch_size 4 --gradient_accumulation_steps 8 \
  --learning_rate 2e-4 --lora_rank 4 --lora_alpha 16 --target_modules q_proj v_proj --modules_to_save embed_tokens lm_head \
  --gradient_checkpointing_kwargs '{"use_reentrant": false}' --remove_unused_columns false --eval_steps 100 --save_steps 100 \
  --save_total_limit 3 --logging_steps 10 --max_length 256 --truncation_strategy right --output_dir runs/titles --warmup_ratio 0.1 \
  --dataloader_num_workers 2 --dataset_num_proc 2 --use_chat_template false"""
RUN_CLASSIFICATION = """
  --model_name_or_path bert-base-chinese --config_name bert-base-chinese --tokenizer_name bert-base-chinese --cache_dir cache \
  --use_fast_tokenizer True --model_revision main --token hf_secret --trust_remote_code False --ignore_mismatched_sizes True \
  --dataset_name owner/reviews --dataset_config_name zh --do_regression False --text_column_names title,body \
  --text_column_delimiter ' ' --train_split_name train --validation_split_name held_out --test_split_name test \
  --remove_splits unused --remove_columns id,date --label_column_name stars --max_seq_length 128 --overwrite_cache False \
  --pad_to_max_length True --shuffle_train_dataset True --shuffle_seed 7 --metric_name f1 --max_train_samples 1000 \
  --max_eval_samples 100 --max_predict_samples 100 --do_train --do_eval --do_predict --per_device_train_batch_size 32 \
  --learning_rate 2e-5 --num_train_epochs 3 --output_dir out"""
LLAMA_FACTORY = """
  --stage sft --do_train True --model_name_or_path Qwen/Qwen2.5-0.5B --preprocessing_num_workers 16 --finetuning_type lora \
  --template qwen --flash_attn auto --dataset_dir data --cutoff_len 2048 --learning_rate 5e-05 --num_train_epochs 3.0 \
  --max_samples 100000 --per_device_train_batch_size 2 --gradient_accumulation_steps 8 --lr_scheduler_type cosine --max_grad_norm 1.0 \
  --logging_steps 5 --save_steps 100 --warmup_steps 0 --packing False --enable_thinking True --report_to none --output_dir saves \
  --bf16 True --plot_loss True --trust_remote_code True --ddp_timeout 180000000 --include_num_input_tokens_seen True \
  --optim adamw_torch --lora_rank 8 --lora_alpha 16 --lora_dropout 0 --lora_target all --pure_bf16 --resize_vocab"""


def s1(arguments: str, model: object, data: object) -> list[str]:
    return shlex.split(arguments.replace("$MODEL", str(model)).replace("$DATA", str(data)))


def options(*words: str) -> tuple[dict[str, str], list[str], list[str]]:
    """What `fenlei train` is told: options, arguments, notes."""
    (command, *translated), notes = translate(["train", *words])
    assert command == "train"
    given: dict[str, str] = {}
    arguments = []
    while translated:
        word, equals, value = translated.pop(0).partition("=")
        if not word.startswith("--"):
            arguments.append(word)
        elif word in ("--gradient-checkpointing", "--no-gradient-checkpointing", "--resume", "--multi-label"):
            given[word] = ""
        else:
            given[word] = value if equals else translated.pop(0)
    return given, arguments, notes


@pytest.mark.parametrize(("arguments", "tuning"), [(S1_FULL, "full"), (S1_LORA, "lora")])
def test_the_lists_of_s1_say_all_they_said(arguments: str, tuning: str) -> None:
    given, data, notes = options(*s1(arguments, "Qwen2.5-0.5B-Instruct", "data/datasets/longnews"))
    assert data == ["data/datasets/longnews"]
    assert given == {
        "--model": "Qwen2.5-0.5B-Instruct",
        "--out": "output_qwen/longnews",
        "--epochs": "3",
        "--batch-size": "4",
        "--learning-rate": "3e-4",
        "--weight-decay": "0.1",
        "--warmup-ratio": "0.01",
        "--report-to": "none",
        "--max-length": "512",
        "--gradient-checkpointing": "",
        "--tuning": tuning,
    }
    silent = ("bf16", "per_device_eval_batch_size", "evaluation_strategy", "save_strategy", "save_steps", "save_total_limit")
    for name in (*silent, "adam_beta2", "logging_steps", "lazy_preprocess"):
        assert sum(note.startswith(f"--{name} ") for note in notes) == 1, f"{name} has no effect, and that is not said"


@pytest.mark.parametrize("arguments", [S1_FULL, S1_LORA])
def test_the_lists_of_s1_run(
    arguments: str, tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "longnews"
    folder.mkdir()
    toy_file.rename(folder / "train.jsonl")
    monkeypatch.chdir(tmp_path)
    assert main(["train", *s1(arguments, tiny_qwen, folder), "--device", "cpu", "--no-baseline"]) == 0
    config = yaml.safe_load((tmp_path / "output_qwen" / "longnews" / "config.yaml").read_text(encoding="utf-8"))
    assert config["tuning"] == ("lora" if "--use_lora" in arguments else "full")
    assert (config["batch_size"], config["epochs"], config["max_length"], config["gradient_checkpointing"]) == (4, 3.0, 256, True)
    assert "--adam_beta2 0.95 has no effect" in capsys.readouterr().err  # and 256 tokens are all that the tiny model takes


def test_s2_predicts_from_a_path_to_a_path(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "infer_results.jsonl"
    train = ["train", str(toy_file), "--model", str(tiny_qwen), "--out", str(run), "--max-steps", "1", "--device", "cpu", "--no-baseline"]
    assert main(train) == 0
    assert main(["predict", str(run), "--input_path", str(toy_file), "--output_path", str(out)]) == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 60


def test_run_classification() -> None:
    given, data, notes = options(
        *shlex.split(
            "--model_name_or_path bert-base-chinese --train_file train.csv --validation_file dev.csv --test_file test.csv --do_train "
            "--do_eval --text_column_names title,body --label_column_name category --max_seq_length 128 --seed 7 --max_steps=50 "
            "--overwrite_output_dir --lora_rank=4 --dataloader_num_workers 4 --output_dir out --fp16 "
            "--load_best_model_at_end True --no_cuda"
        )
    )
    assert data == ["train.csv"]
    assert given == {
        "--model": "bert-base-chinese",
        "--dev": "dev.csv",
        "--test": "test.csv",
        "--text-column": "title,body",
        "--label-column": "category",
        "--max-length": "128",
        "--seed": "7",
        "--max-steps": "50",
        "--lora-rank": "4",
        "--out": "out",
        "--device": "cpu",
        "--tuning": "full",
    }
    assert [note.split()[0] for note in notes] == ["--do_eval", "--overwrite_output_dir", "--dataloader_num_workers", "--fp16", "--tuning"]
    assert options("--dataset_name", "clue/clue", "--dataset_config_name", "tnews")[1] == ["hf:clue/clue:tnews"]


def test_ms_swift_and_llama_factory(tmp_path: Path) -> None:
    given, data, notes = options(
        *shlex.split(
            "--model Qwen/Qwen2.5-0.5B --tuner_type lora --task_type seq_cls --num_labels 14 --dataset DAMO_NLP/jd#2000 "
            "--val_dataset dev.jsonl --torch_dtype bfloat16 --target_modules all-linear --max_length 512 "
            "--gradient_accumulation_steps 16 --use_hf false"
        )
    )
    assert data == ["modelscope:DAMO_NLP/jd"]
    assert given == {
        "--model": "Qwen/Qwen2.5-0.5B",
        "--tuning": "lora",
        "--dev": "dev.jsonl",
        "--lora-targets": "all-linear",
        "--max-length": "512",
        "--source": "modelscope",
    }
    assert [note.split()[0] for note in notes] == ["--num_labels", "--dataset", "--torch_dtype", "--gradient_accumulation_steps"]
    assert options("--dataset", "DAMO_NLP/jd", "--use_hf", "true")[1] == ["hf:DAMO_NLP/jd"]
    (tmp_path / "rows.jsonl").write_text("")
    assert options("--dataset", str(tmp_path / "rows.jsonl"))[1] == [str(tmp_path / "rows.jsonl")]
    given, _, notes = options(*shlex.split("--stage sft --finetuning_type freeze --lora_target all --cutoff_len 256 --val_size 0.1"))
    assert given == {"--tuning": "frozen", "--lora-targets": "all-linear", "--max-length": "256", "--dev-ratio": "0.1"}
    assert notes == ["--stage sft has no effect: fenlei classifies; --method generate asks the language model itself"]


def test_a_whole_command_of_ms_swift() -> None:
    given, data, notes = options(*shlex.split(MS_SWIFT))
    assert data == ["modelscope:owner/titles-v1.1:news"]
    assert given == {
        "--model": "Qwen/Qwen2.5-0.5B",
        "--tuning": "lora",
        "--multi-label": "",
        "--dev-ratio": "0.05",
        "--epochs": "2",
        "--batch-size": "32",
        "--learning-rate": "2e-4",
        "--lora-rank": "4",
        "--lora-alpha": "16",
        "--lora-targets": "q_proj,v_proj",
        "--max-length": "256",
        "--long": "truncate",
        "--out": "runs/titles",
        "--warmup-ratio": "0.1",
    }
    assert "--modules_to_save embed_tokens,lm_head has no effect: a head is trained whole beside the adapters, and nothing else is" in notes
    told = {note.split()[0] for note in notes}
    assert told >= {"--load_from_cache_file", "--gradient_checkpointing_kwargs", "--remove_unused_columns", "--use_chat_template"}


def test_a_whole_command_of_run_classification() -> None:
    given, data, notes = options(*shlex.split(RUN_CLASSIFICATION))
    assert data == ["hf:owner/reviews:zh"]
    assert given == {
        "--model": "bert-base-chinese",
        "--revision": "main",
        "--text-column": "title,body",
        "--label-column": "stars",
        "--max-length": "128",
        "--max-train-rows": "1000",
        "--batch-size": "32",
        "--learning-rate": "2e-5",
        "--epochs": "3",
        "--out": "out",
        "--tuning": "full",
    }
    told = {note.split()[0] for note in notes}
    assert told >= {"--config_name", "--tokenizer_name", "--token", "--remove_splits", "--remove_columns", "--shuffle_seed"}
    assert told & {"--train_split_name", "--validation_split_name", "--test_split_name", "--do_regression"} == {"--validation_split_name"}
    assert "hf_secret" not in "".join(notes)


@pytest.mark.parametrize(
    ("words", "tuning"),
    [
        ("--train_file news.csv", "full"),
        ("--dataset_name owner/news", "full"),
        ("--train_file news.csv --tuning lora", "lora"),
        ("--do_train --max_seq_length 128", None),  # LLaMA-Factory says do_train too, and means LoRA
    ],
)
def test_run_classification_trains_all_weights_unless_lora_is_asked_for(words: str, tuning: str | None) -> None:
    given, _, notes = options(*words.split())
    assert given.get("--tuning") == tuning
    assert [note.partition(":")[0] for note in notes] == (["--tuning full"] if tuning == "full" else [])


def test_a_whole_command_of_llama_factory() -> None:
    given, data, notes = options("news.jsonl", *shlex.split(LLAMA_FACTORY))
    assert data == ["news.jsonl"]
    assert given == {
        "--model": "Qwen/Qwen2.5-0.5B",
        "--tuning": "lora",
        "--max-length": "2048",
        "--learning-rate": "5e-05",
        "--epochs": "3.0",
        "--max-train-rows": "100000",
        "--max-grad-norm": "1.0",
        "--report-to": "none",
        "--out": "saves",
        "--lora-rank": "8",
        "--lora-alpha": "16",
        "--lora-dropout": "0",
        "--lora-targets": "all-linear",
        "--batch-size": "16",
    }
    told = {note.split()[0] for note in notes}
    assert told >= {"--packing", "--enable_thinking", "--include_num_input_tokens_seen", "--pure_bf16", "--resize_vocab"}


@pytest.mark.parametrize("words", [["--problem_type", "regression"], ["--do_regression"], ["--do_regression", "True", "--do_train"]])
def test_numbers_in_place_of_classes_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="only classifies"):
        options(*words)
    assert main(["train", "rows.jsonl", "--model", "nano", "--out", "run", *words]) == 1
    assert f"{words[0]} " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "targets", "left"),
    [
        (["q_proj", "k_proj"], "q_proj,k_proj", []),
        (["self_attn.q_proj", "k_proj", "news.jsonl"], "self_attn.q_proj,k_proj", ["news.jsonl"]),
        (["all-linear", "hf:owner/news"], "all-linear", ["hf:owner/news"]),
    ],
)
def test_a_list_has_several_words_and_ends_before_the_data(words: list[str], targets: str, left: list[str]) -> None:
    assert options("--target_modules", *words, "--seed", "1")[:2] == ({"--lora-targets": targets, "--seed": "1"}, left)


@pytest.mark.parametrize(
    ("words", "tuning", "noted"),
    [
        ("--finetuning_type lora --quantization_bit 4 --quantization_method bnb", "qlora", []),
        ("--quant_bits 4 --quant_method bnb --bnb_4bit_quant_type nf4 --bnb_4bit_use_double_quant --tuner_type lora", "qlora", []),
        ("--quant_bits 4", "qlora", []),
        ("--tuning qlora --quant_bits 4", "qlora", []),
        ("--tuner_type lora --quant_bits 8 --quant_method hqq", "lora", ["--quant_method", "--quant_bits"]),
        ("--tuner_type full --quant_bits 4", "full", ["--quant_bits"]),
    ],
)
def test_four_bits_below_lora_are_qlora(words: str, tuning: str, noted: list[str]) -> None:
    given, _, notes = options(*words.split())
    assert given == {"--tuning": tuning}
    assert [note.split()[0] for note in notes] == noted
    assert all("--tuning qlora" in note for note in notes)


@pytest.mark.parametrize(
    ("words", "means", "noted"),
    [
        ("--split_dataset_ratio 0.01", {"--dev-ratio": "0.01"}, ""),
        ("--split_dataset_ratio 0 --val_dataset dev.jsonl", {"--dev": "dev.jsonl"}, ""),
        ("--split_dataset_ratio 0.01 --dev dev.jsonl", {"--dev": "dev.jsonl"}, "--dev names the dev rows"),
        ("--val_size 0", {}, "15 % are set aside"),
        ("--val_size 500", {}, "a share of the rows"),
        ("--val_size many", {"--dev-ratio": "many"}, ""),
    ],
)
def test_a_share_for_dev_is_passed_on_where_it_is_one(words: str, means: dict[str, str], noted: str) -> None:
    given, _, notes = options(*words.split())
    assert given == means
    assert len(notes) == bool(noted)
    assert noted in "".join(notes)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("owner/set-v1.1", "modelscope:owner/set-v1.1"),
        ("owner/set:news --use_hf true", "hf:owner/set:news"),
        ("rows/dev.jsonl.gz", "rows/dev.jsonl.gz"),
        ("hf:owner/set:validation", "hf:owner/set:validation"),
    ],
)
def test_dev_rows_are_named_as_the_data_is(words: str, named: str) -> None:
    assert options("--dataset", *words.split())[1] == [named]
    for option in ("--val_dataset", "--eval_dataset"):
        assert options(option, *words.split())[0]["--dev"] == named


def test_ms_swift_infers() -> None:
    words = "--val_dataset new.jsonl --load_data_args true --adapters out/checkpoint-5 --result_path said.jsonl"
    silent = "--max_batch_size 16 --infer_backend vllm --truncation_strategy right --stream --max_new_tokens 8 --temperature 0"
    translated, notes = translate(["predict", *words.split(), *silent.split()])
    assert translated == ["predict", "out/checkpoint-5", "--out", "said.jsonl", "new.jsonl"]
    ignored = [word for word in ["--load_data_args", *silent.split()] if word.startswith("--")]
    assert [note.split()[0] for note in notes] == ignored


@pytest.mark.parametrize(
    ("words", "means"),
    [
        (["--gradient_checkpointing", "False"], {"--no-gradient-checkpointing": ""}),
        (["--gradient_checkpointing", "--seed", "1"], {"--gradient-checkpointing": "", "--seed": "1"}),
        (["--use_lora", "False"], {"--tuning": "full"}),
        (["--per_device_train_batch_size", "8"], {"--batch-size": "8"}),
        (["--resume_from_checkpoint", "out/checkpoint-3"], {"--resume": ""}),
        (["--is_training", "True", "--tuning", "frozen"], {"--tuning": "frozen"}),
        (["--is_training", "True", "--tuning=frozen"], {"--tuning": "frozen"}),
    ],
)
def test_booleans_stand_alone_or_before_a_value(words: list[str], means: dict[str, str]) -> None:
    assert options(*words)[0] == means


def test_what_nobody_knows_is_left_to_the_parser_and_other_commands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "news.jsonl", "--lora_rnak", "8"]) == 2
    assert "--lora-rank" in capsys.readouterr().err
    for command in (["evaluate", "run", "data", "--bf16", "True"], [], ["--version"], ["predict", "run", "--bf16"]):
        assert translate(command) == (command, [])


def test_long_texts_are_told_of_by_the_option_that_says_how_they_are_read() -> None:
    said = "long texts are read in windows or shortened, as --long says, and counted; none is dropped"
    assert options("--truncation_strategy", "delete")[2] == [f"--truncation_strategy delete has no effect: {said}"]
    assert options("--truncation_strategy", "right") == ({"--long": "truncate"}, [], [])


def test_no_option_of_fenlei_is_taken_for_an_older_one() -> None:
    """Where both have a name in common, it must mean the same."""
    same = {"model_name_or_path", "output_dir", "gradient_checkpointing"}
    assert COMMANDS["train"] & HELP.keys() <= same
    assert set(AS_IT_IS) & set(IGNORED) == set() == set(RENAMED) & set(IGNORED)
    assert BOOLEANS <= COMMANDS["train"] | COMMANDS["predict"]


def test_every_older_option_is_in_the_guide() -> None:
    guide = (ROOT / "docs" / "migrate.md").read_text(encoding="utf-8")
    missing = sorted(name for command in COMMANDS.values() for name in command if f"--{name}`" not in guide)
    assert missing == []


def test_the_launch_script_takes_a_model_and_data(tmp_path: Path) -> None:
    (tmp_path / "fenlei").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "fenlei").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ["sh", str(ROOT / "examples" / "finetune.sh"), "-m", "models/qwen", "-d", "data/long news", "--use_lora"]
    child = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60, check=True)
    command, *words = child.stdout.splitlines()
    assert command == "train"
    given, data, notes = options(*words)
    assert (data, notes) == (["data/long news"], [])
    assert {"--model": "models/qwen", "--out": "runs/long news", "--tuning": "lora", "--batch-size": "4"}.items() <= given.items()
