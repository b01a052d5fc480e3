"""What `import fenlei` gives, and what it does not drag in."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import fenlei

HEAVY = ("torch", "transformers", "peft", "accelerate", "sklearn", "scipy", "matplotlib", "pyarrow", "numpy")


def test_all_names_can_be_imported_and_stand_once_in_order() -> None:
    assert fenlei.__all__ == sorted(set(fenlei.__all__))
    for name in fenlei.__all__:
        assert getattr(fenlei, name) is not None


def test_a_lazy_name_is_the_one_of_its_module() -> None:
    homes = fenlei._HOMES
    assert set(homes) <= set(fenlei.__all__)
    for name, home in homes.items():
        assert getattr(fenlei, name) is getattr(importlib.import_module(home), name)


def test_nothing_public_is_missing_from_all() -> None:
    modules = {name for name in dir(fenlei) if f"fenlei.{name}" in sys.modules}
    public = {name for name in dir(fenlei) if not name.startswith("_")} - modules - {"annotations", "importlib", "Any", "TYPE_CHECKING"}
    assert public == set(fenlei.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'fenlei' has no attribute 'Clasifier'"):
        _ = fenlei.Clasifier


@pytest.mark.parametrize("module", ["fenlei", "fenlei.cli.main"])
def test_importing_it_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}} & {set(HEAVY)!r}))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (child.returncode, child.stdout.strip()) == (0, ""), child.stderr
