from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

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
