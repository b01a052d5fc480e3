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
        elif word in ("--gradient-checkpointing", "--no-gradient-checkpointing", "--resume"):
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
    }
    assert [note.split()[0] for note in notes] == ["--do_eval", "--overwrite_output_dir", "--dataloader_num_workers", "--fp16"]
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


def test_no_option_of_fenlei_is_taken_for_an_older_one() -> None:
    """Where both have a name in common, it must mean the same."""
    same = {"model_name_or_path", "output_dir", "gradient_checkpointing"}
    assert COMMANDS["train"] & HELP.keys() <= same
    assert set(AS_IT_IS) & set(IGNORED) == set() == set(RENAMED) & set(IGNORED)
    assert BOOLEANS <= COMMANDS["train"]


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
