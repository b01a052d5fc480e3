from __future__ import annotations

import ast
import dataclasses
import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fenlei import ConfigError, RunConfig
from fenlei.config import DataConfig, ModelConfig, OptimizationConfig, SearchConfig, TrustConfig, synonyms

SETTINGS: dict[str, Any] = {
    "data": "train.jsonl",
    "dev_ratio": 0.2,
    "text_column": "title,body",
    "model": "nano",
    "tuning": "lora",
    "prompt": "新闻：{text}",
    "epochs": 2,
    "learning_rate": 3e-4,
    "baseline": False,
}


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_options_land_in_the_part_that_owns_them() -> None:
    config = RunConfig.from_options(SETTINGS)
    assert config.data == DataConfig(data="train.jsonl", dev_ratio=0.2, text_column="title,body")
    assert config.model == ModelConfig(model="nano", tuning="lora", prompt="新闻：{text}")
    assert config.optimization == OptimizationConfig(epochs=2.0, learning_rate=3e-4, baseline=False)


def test_no_two_parts_own_the_same_option() -> None:
    fields = [field.name for part in (DataConfig, ModelConfig, OptimizationConfig, TrustConfig) for field in dataclasses.fields(part)]
    assert len(fields) == len(set(fields))
    assert set(RunConfig().to_options()) == set(fields)


@pytest.mark.parametrize("part", [DataConfig, ModelConfig, OptimizationConfig, TrustConfig, SearchConfig])
def test_every_option_says_what_it_is_for(part: type) -> None:
    """docs/python.md shows these words, and nothing where there are none."""
    (definition,) = ast.parse(inspect.getsource(part)).body
    assert isinstance(definition, ast.ClassDef)
    bare = [
        one.target.id
        for one, after in pairwise(definition.body)
        if isinstance(one, ast.AnnAssign)
        and isinstance(one.target, ast.Name)
        and not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant))
    ]
    assert bare == []


@pytest.mark.parametrize("config", [RunConfig(), RunConfig.from_options(SETTINGS)])
def test_yaml_and_options_give_the_same_run_back(tmp_path: Path, config: RunConfig) -> None:
    assert RunConfig.from_options(config.to_options()) == config
    assert RunConfig.from_yaml(write(tmp_path, config.to_yaml())) == config


def test_yaml_keeps_chinese_readable() -> None:
    assert "新闻：{text}" in RunConfig.from_options(SETTINGS).to_yaml()


@pytest.mark.parametrize("rate", [1e-3, 3e-4, 1e-5, 2.5e-7])
def test_a_learning_rate_survives_yaml(tmp_path: Path, rate: float) -> None:
    config = RunConfig.from_options({"learning_rate": rate})
    assert RunConfig.from_yaml(write(tmp_path, config.to_yaml())).optimization.learning_rate == rate


def test_yaml_takes_the_command_s_hyphens_and_overrides_win(tmp_path: Path) -> None:
    path = write(tmp_path, "batch-size: 8\nepochs: 1\n")
    config = RunConfig.from_yaml(path, {"epochs": 5.0})
    assert (config.optimization.batch_size, config.optimization.epochs) == (8, 5.0)


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ({"dev": "dev.jsonl"}, {"dev_ratio": 0.2}),
        ({"dev_ratio": 0.2}, {"dev": "dev.jsonl"}),
        ({"test_ratio": 0.2}, {"test": "test.jsonl"}),
        ({"target_accuracy": 0.95}, {"min_confidence": 0.6}),
    ],
)
def test_an_option_takes_the_place_of_its_rival(stored: dict[str, Any], given: dict[str, Any], tmp_path: Path) -> None:
    """Of one that stands in the file; two that are given at once still exclude each other."""
    path = write(tmp_path, RunConfig.from_options(stored).to_yaml())
    assert RunConfig.from_yaml(path, given) == RunConfig.from_options(given)
    assert RunConfig.from_yaml(path, dict.fromkeys(given)) == RunConfig.from_options(stored)
    with pytest.raises(ConfigError, match="exclude each other"):
        RunConfig.from_yaml(path, {**stored, **given})


def test_epochs_take_the_place_of_steps_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, "max_steps: 100\n")
    assert RunConfig.from_yaml(path, {"epochs": 5.0}).optimization.max_steps is None
    assert RunConfig.from_yaml(path, {"epochs": 5.0, "max_steps": 7}).optimization.max_steps == 7


def test_an_empty_yaml_file_is_all_defaults(tmp_path: Path) -> None:
    assert RunConfig.from_yaml(write(tmp_path, "")) == RunConfig()


def test_replace_gives_a_changed_copy() -> None:
    config = RunConfig.from_options(SETTINGS)
    changed = config.replace(epochs=4, tuning=None)
    assert (changed.optimization.epochs, changed.model.tuning) == (4.0, None)
    assert config == RunConfig.from_options(SETTINGS)
    assert changed.replace(epochs=2, tuning="lora") == config


def test_what_was_given_is_known_whatever_its_value(tmp_path: Path) -> None:
    assert RunConfig().given == frozenset()
    from_file = RunConfig.from_yaml(write(tmp_path, "seed: 42\n"), {"tuning": "lora"})
    assert from_file.given == {"seed", "tuning"}
    assert from_file.replace(epochs=2.0).given == from_file.given
    assert from_file.overridden({"report_to": "none"}).given == {"seed", "tuning", "report_to"}
    assert from_file == RunConfig().replace(tuning="lora"), "and does not tell two configurations apart"


def test_an_unknown_option_names_the_file_and_what_was_meant(tmp_path: Path) -> None:
    path = write(tmp_path, "learning-rat: 0.1\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: unknown option 'learning_rat' \(did you mean 'learning_rate'\?\)"):
        RunConfig.from_yaml(path)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("lr", "learning_rate"),
        ("model_name_or_path", "model"),
        ("dataset", "data"),
        ("val_dataset", "dev"),
        ("val_size", "dev_ratio"),
        ("split_dataset_ratio", "dev_ratio"),
        ("num_train_epochs", "epochs"),
        ("per_device_train_batch_size", "batch_size"),
        ("max_seq_length", "max_length"),
        ("cutoff_len", "max_length"),
        ("finetuning_type", "tuning"),
        ("lora_r", "lora_rank"),
        ("eval_steps", "evals_per_epoch"),
        ("save_steps", "evals_per_epoch"),
    ],
)
def test_what_other_programs_call_an_option_is_told_by_its_name_here(name: str, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"^options: unknown option '{name}' \(did you mean '{option}'\?\)$"):
        RunConfig.from_options({name: 1})


def test_every_other_name_stands_once_and_for_an_option() -> None:
    options = RunConfig().to_options().keys()
    assert {*synonyms.RENAMED.values(), *synonyms.OTHERWISE.values()} <= options
    others = [*synonyms.RENAMED, *synonyms.OTHERWISE, *synonyms.OF_THE_CALL]
    assert len(set(others)) == len(others)
    assert not set(others) & options


@pytest.mark.parametrize(("name", "own"), [("out", "out"), ("output_dir", "out"), ("output-dir", "out"), ("resume", "resume")])
def test_what_starts_a_run_belongs_on_the_command_line(tmp_path: Path, name: str, own: str) -> None:
    path = write(tmp_path, f"{name}: runs/news\n")
    with pytest.raises(ConfigError, match=rf"run\.yaml: '{name.replace('-', '_')}' belongs on the command line, as --{own} "):
        RunConfig.from_yaml(path)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_options({"nonsense": 1, "tuning": "half", "batch_size": "many", "baseline": 1})
    lines = str(caught.value).splitlines()
    assert lines == [
        "options: unknown option 'nonsense'",
        "options: tuning must be one of full, lora, qlora, frozen, none or null, was 'half'",
        "options: batch_size must be a whole number or null, was 'many'",
        "options: baseline must be true or false, was 1",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dev_ratio": 1.0}, "dev_ratio must lie between 0 and 1, was 1.0"),
        ({"test_ratio": 0.0}, "test_ratio must lie between 0 and 1, was 0.0"),
        ({"dev_ratio": 0.6, "test_ratio": 0.4}, "leave no rows to train on"),
        ({"dev": "dev.jsonl", "dev_ratio": 0.1}, "dev and dev_ratio exclude each other"),
        ({"test": "test.jsonl", "test_ratio": 0.1}, "test and test_ratio exclude each other"),
        ({"layers": 0}, "layers must be at least 1, was 0"),
        ({"max_length": -1}, "max_length must be at least 1, was -1"),
        ({"prompt": "classify this"}, r"a template that contains \{text\} once, was 'classify this'"),
        ({"lora_dropout": 1.0}, "lora_dropout must be at least 0 and below 1, was 1.0"),
        ({"epochs": 0}, "epochs must be above 0, was 0"),
        ({"seed": -1}, "seed must be at least 0 and below 4294967296, was -1"),
        ({"seed": 2**32}, "seed must be at least 0 and below 4294967296, was 4294967296"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be at least 0, was -1.0"),
        ({"batch_size": -4}, "batch_size must be above 0, was -4"),
        ({"warmup_ratio": 1.5}, "warmup_ratio must be at least 0 and below 1, was 1.5"),
        ({"batch_size": True}, "batch_size must be a whole number or null, was True"),
        ({"batch_size": 1.5}, "batch_size must be a whole number or null, was 1.5"),
        ({"learning_rate": "fast"}, "learning_rate must be a number or null, was 'fast'"),
    ],
)
def test_a_value_that_cannot_work_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_options(options)


def test_contradictions_in_several_parts_come_together() -> None:
    with pytest.raises(ConfigError, match=r"(?s)^dev_ratio must .*\nlayers must .*\nepochs must "):
        RunConfig.from_options({"dev_ratio": 2.0, "layers": 0, "epochs": -1})


@pytest.mark.parametrize("prompt", ["zh", "en", "{text} 属于"])
def test_prompts_that_work(prompt: str) -> None:
    assert RunConfig.from_options({"prompt": prompt}).model.prompt == prompt


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such configuration file"):
        RunConfig.from_yaml(tmp_path / "none.yaml")


def test_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a readable YAML file"):
        RunConfig.from_yaml(write(tmp_path, "model: [nano\n"))


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("prompt: 新闻{text}".encode("gb18030"))
    with pytest.raises(ConfigError, match="not a readable YAML file"):
        RunConfig.from_yaml(path)


def test_yaml_that_is_a_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected 'option: value' lines, found list"):
        RunConfig.from_yaml(write(tmp_path, "- model\n- nano\n"))


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    harmful = tmp_path / "harm"
    with pytest.raises(ConfigError):
        RunConfig.from_yaml(write(tmp_path, f"model: !!python/object/apply:pathlib.Path.touch [{harmful}]\n"))
    assert not harmful.exists()


def test_the_yaml_is_flat() -> None:
    assert not any(isinstance(value, (dict, list)) for value in yaml.safe_load(RunConfig.from_options(SETTINGS).to_yaml()).values())


def test_what_shapes_sets_is_told_to_have_no_effect_without_them() -> None:
    assert TrustConfig(set_by_class=True).without_effect == (
        "set_by_class has no effect without set_coverage: give the coverage that sets are to have, or leave it out"
    )
    assert "set_score 'aps'" in str(TrustConfig(set_score="aps").without_effect)
    assert TrustConfig().without_effect is None
    assert TrustConfig(set_coverage=0.9, set_score="aps", set_by_class=True).without_effect is None


def test_numbers_of_numpy_are_taken_as_plain_ones() -> None:
    """As searches over options give them."""
    given: dict[str, Any] = {"learning_rate": np.float64(1e-3), "batch_size": np.int64(8), "epochs": np.int64(2), "tuning": np.str_("lora")}
    plain: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 8, "epochs": 2, "tuning": "lora"}
    assert RunConfig.from_options(given).to_yaml() == RunConfig.from_options(plain).to_yaml()
    assert RunConfig.from_options({"baseline": np.bool_(False)}).optimization.baseline is False
