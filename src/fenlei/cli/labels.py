"""`fenlei labels`: other labels for a finished run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "fenlei labels runs/news",
    "fenlei labels runs/news --rename 体育=sports --out runs/renamed",
    "fenlei labels runs/news --merge 财经,股票=经济 --drop 其他 --out runs/fewer",
)


def labels(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run; it stays as it is.")],
    *,
    rename: Annotated[list[str] | None, typer.Option("--rename", metavar="OLD=NEW", help="Give a label another name.")] = None,
    merge: Annotated[
        list[str] | None, typer.Option("--merge", metavar="A,B=C", help="Make one label of several: probabilities add.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", metavar="LABEL", help="Leave a label out; the others share what it had.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "--output-dir", help="Folder for the changed run; it must be new or empty.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the labels as JSON.")] = False,
) -> None:
    """List a run's labels, or rename, merge and drop some without training.

    Each option may come several times.
    """
    from fenlei.artifact import read_manifest
    from fenlei.cli.display import notes, print_json

    names: tuple[str, ...] = tuple(read_manifest(run)["labels"])
    told: tuple[str, ...] = ()
    if rename or merge or drop:
        if out is None:
            raise typer.BadParameter("name the folder that the changed run goes to", param_hint="'--out'")
        from fenlei.labels import known_names_in
        from fenlei.training.relabel import relabel

        renamed = _once((_parted(one, "--rename", lambda old: old in names) for one in rename or ()), "--rename")
        merged = (_parted(one, "--merge", lambda old: set(known_names_in(old, names)) <= set(names)) for one in merge or ())
        made_of = {new: known_names_in(old, names) for new, old in _once(((new, old) for old, new in merged), "--merge").items()}
        result = relabel(
            run, out=out, rename=renamed, merge=made_of, drop=[name for one in drop or () for name in known_names_in(one, names)]
        )
        names, told = result.labels, result.notes
    elif out is not None:
        raise typer.BadParameter("nothing to change: give --rename, --merge or --drop", param_hint="'--out'")
    if json:
        print_json(list(names))
    else:
        for name in names:
            typer.echo(name)
    for note in told:
        notes().print(note, markup=False)


def _parted(word: str, option: str, are_names: Callable[[str], bool]) -> tuple[str, str]:
    """What stands before and after the equals sign: the first behind labels of the run, since a label may hold some, or else the first."""
    sides = [(word[:at], word[at + 1 :]) for at, sign in enumerate(word) if sign == "="]
    if not sides:
        raise typer.BadParameter(f"expected two sides of an equals sign, found {word!r}", param_hint=f"'{option}'")
    return next((one for one in sides if one[0] and are_names(one[0])), sides[0])


def _once(pairs: Iterable[tuple[str, str]], option: str) -> dict[str, str]:
    """The pairs, none of whose first sides may come twice."""
    found: dict[str, str] = {}
    for first, second in pairs:
        if first in found:
            raise typer.BadParameter(f"{first!r} comes twice", param_hint=f"'{option}'")
        found[first] = second
    return found
