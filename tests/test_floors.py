"""The plan of the house (docs/architecture.md): imports go down the floors, never up, and along a floor in one direction only."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FLOORS = {
    "__main__": 8,
    "cli": 7,
    "serving": 7,
    "report": 6,
    "annotation": 6,
    "export": 6,
    "training": 5,
    "artifact": 4,
    "inference": 4,
    "audit": 4,
    "evaluation": 3,
    "models": 2,
    "data": 1,
    "text": 1,
    "hubs": 0,
    "errors": 0,
    "locks": 0,
    "labels": 0,
    "hierarchy": 0,
    "config": 0,
}
"""A room is a folder or file directly below src/fenlei."""

FRONT_DOOR = 8
"""fenlei/__init__.py opens every room to users; inside the house nobody goes through it."""

ONLY_IN = {"peft": "fenlei.models.lora", "ray": "fenlei.inference.ray_engine"}
"""A library whose ways only one module knows."""


def module_name(path: Path, source: Path = SOURCE) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path, source: Path = SOURCE) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in a file, wherever it stands; `from package import name` counts as package.name."""
    package = module_name(path, source).split(".") if path.name == "__init__.py" else module_name(path, source).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str | None:
    """The room of a module of ours: '' for the front door; None for other people's modules."""
    parts = module.split(".")
    if parts[0] != "fenlei":
        return None
    if module == "fenlei.__version__":  # a constant that __init__ sets before it opens any room
        return "errors"
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else ""


def floor_of(room: str) -> int:
    return FLOORS[room] if room else FRONT_DOOR


def climbs(source: Path) -> list[str]:
    found = []
    for path in sorted(source.rglob("*.py")):
        home = room_of(module_name(path, source))
        assert home is not None
        for line, module in imported_modules(path, source):
            room = room_of(module)
            if room is not None and floor_of(room) > floor_of(home):
                where = path.relative_to(source).as_posix()
                found.append(f"{where}:{line}: floor {floor_of(home)} imports {module} of floor {floor_of(room)}")
    return found


def neighbours(source: Path) -> dict[str, set[str]]:
    """Which other rooms of its own floor each room imports from."""
    edges: dict[str, set[str]] = {}
    for path in sorted(source.rglob("*.py")):
        home = room_of(module_name(path, source))
        for _, module in imported_modules(path, source):
            room = room_of(module)
            if home and room and room != home and FLOORS[room] == FLOORS[home]:
                edges.setdefault(home, set()).add(room)
    return edges


def test_every_room_has_a_floor() -> None:
    entries = (entry for entry in (SOURCE / "fenlei").iterdir() if entry.suffix == ".py" or any(entry.glob("*.py")))
    homeless = {entry.stem for entry in entries} - FLOORS.keys() - {"__init__"}
    assert not homeless, f"give these a floor in FLOORS and in docs/architecture.md: {sorted(homeless)}"


def test_no_module_imports_from_a_floor_above_its_own() -> None:
    assert climbs(SOURCE) == []


def test_rooms_on_one_floor_do_not_import_each_other_in_a_circle() -> None:
    tuple(graphlib.TopologicalSorter(neighbours(SOURCE)).static_order())


@pytest.mark.parametrize(("library", "home"), ONLY_IN.items())
def test_a_library_stays_where_it_is_known(library: str, home: str) -> None:
    users = {module_name(path) for path in SOURCE.rglob("*.py") for _, module in imported_modules(path) if module.split(".")[0] == library}
    assert users <= {home}


def test_there_is_one_softmax_and_one_sigmoid() -> None:
    softmaxes = [
        f"{path.relative_to(SOURCE).as_posix()}:{node.lineno}"
        for path in sorted(SOURCE.rglob("*.py"))
        if module_name(path) not in ("fenlei.evaluation.calibration", "fenlei.models.attention")  # the latter's is over tokens
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if getattr(node, "attr", getattr(node, "id", "")).lower() in ("softmax", "sigmoid", "expit")
    ]
    assert softmaxes == []


def splits_of_files_and_json(source: str) -> list[int]:
    """Lines where the text of a file, or JSON lines, are split by `splitlines`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.Return, ast.Expr, ast.For, ast.ListComp, ast.GeneratorExp))
        and {"splitlines"} < (names := {getattr(one, "attr", getattr(one, "id", "")) for one in ast.walk(_head(node))})
        and names & {"read_text", "loads", "render"}
    ]


def _head(node: ast.AST) -> ast.AST:
    """A loop without its body."""
    return node.iter if isinstance(node, ast.For) else node


@pytest.mark.parametrize("folder", ["src", "bench", "scripts", "pretraining", "examples"])
def test_no_file_and_no_json_is_split_at_the_line_ends_inside_its_texts(folder: str) -> None:
    """`splitlines` splits at U+2028, U+0085 and more, which JSON strings hold as they are."""
    root = SOURCE.parent / folder
    found = {path.relative_to(root).as_posix(): splits_of_files_and_json(path.read_text("utf-8")) for path in sorted(root.rglob("*.py"))}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "statement",
    [
        "rows = [json.loads(line) for line in text.splitlines()]",
        "for line in path.read_text().splitlines(): pass",
        "show([json.loads(line) for line in render(picked).splitlines()])",
    ],
)
def test_the_check_sees_every_such_split(statement: str) -> None:
    assert splits_of_files_and_json(statement)
    assert not splits_of_files_and_json(statement.replace("splitlines()", "split('\\n')"))


@pytest.mark.parametrize(
    ("importer", "statement", "climbing"),
    [
        ("data/readers.py", "from fenlei.models.backbone import load", True),
        ("data/readers.py", "import fenlei.training.fit", True),
        ("data/readers.py", "from ..models import backbone", True),
        ("data/readers.py", "def f():\n    from fenlei import train", True),
        ("models/head.py", "from fenlei.data.readers import read_examples", False),
        ("models/head.py", "from .method import Method", False),
        ("models/__init__.py", "from .head import Head", False),
        ("artifact.py", "from fenlei import __version__", False),
        ("cli/main.py", "from fenlei.training.fit import train", False),
        ("__init__.py", "from fenlei.cli.main import run", False),
    ],
)
def test_the_check_sees_every_way_to_import(tmp_path: Path, importer: str, statement: str, climbing: bool) -> None:
    path = tmp_path / "fenlei" / importer
    path.parent.mkdir(parents=True)
    path.write_text(statement, encoding="utf-8")
    assert bool(climbs(tmp_path)) is climbing


def test_the_check_sees_a_circle(tmp_path: Path) -> None:
    for room, other in (("data", "text"), ("text", "data")):
        (tmp_path / "fenlei" / room).mkdir(parents=True)
        (tmp_path / "fenlei" / room / "a.py").write_text(f"import fenlei.{other}.a", encoding="utf-8")
    with pytest.raises(graphlib.CycleError):
        tuple(graphlib.TopologicalSorter(neighbours(tmp_path)).static_order())
