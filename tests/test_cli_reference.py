from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from fenlei.cli.distill import AS_READ, OF_ITS_ROWS
from fenlei.cli.extend import DEFAULTS, OPTIONS
from fenlei.config import DataConfig
from fenlei.training.extend import ANEW
from fenlei.training.student_rows import READ_BY

SCRIPT = Path(__file__).parents[1] / "scripts" / "generate_cli_reference.py"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("generate_cli_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks its own module up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_reference_is_that_of_the_commands(script: ModuleType) -> None:
    written = script.TARGET.read_text(encoding="utf-8")
    assert written == script.reference(), "the commands have changed: run python scripts/generate_cli_reference.py"


def test_every_command_and_option_is_in_it(script: ModuleType) -> None:
    page = script.reference()
    for command in ("demo", "train", "evaluate", "predict", "export", "download"):
        assert f"## fenlei {command}\n" in page
    for option in ("--lr", "--model-name-or-path", "--no-baseline", "--out", "--prefix", "--force", "--cache-dir", "--dry-run"):
        assert f"`{option}`" in page
    assert "(default: 32)" in page
    assert "*lora*" in page


@pytest.mark.parametrize("command", ["extend", "distill"])
def test_a_default_that_is_that_of_a_run_is_told_as_such(script: ModuleType, command: str) -> None:
    section = script.reference().partition(f"## fenlei {command}\n")[2].partition("\n## ")[0]
    assert "(default: 42)" not in section
    assert "| `--seed` N | Two runs with one seed are equal. (default: RUN's) |" in section


def test_what_is_told_of_a_run_is_what_is_taken_over_from_it() -> None:
    of_the_run = {name for name in OPTIONS if DEFAULTS.get(name) == "RUN's"}
    assert of_the_run == set(OPTIONS) - set(ANEW) - {"class_file", "dev", "baseline"}
    assert set(AS_READ) == {*READ_BY, "multi_label", "seed"}
    of_data = {name for name in DataConfig.__dataclass_fields__ if name not in ("data", "store_exemplars")}
    assert of_data == {*READ_BY, "multi_label", *OF_ITS_ROWS}


def test_options_of_which_nothing_is_done_unasked_say_so(script: ModuleType) -> None:
    page = script.reference()
    assert page.count("null, None): never. (default: never) |") == page.count("| `--early-stopping-patience` N |") == 4
    assert page.count("| `--test-ratio` X | Share of the training rows set aside for test. (default: none) |") == 2  # distill: RUN's
