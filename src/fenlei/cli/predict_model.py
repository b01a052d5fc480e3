"""What `fenlei predict` asks: a run, or what is none, a model's name or an adapter of others, which is told how to read texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from fenlei.cli.trust import OTHER_LABELS, tell_what_promises_lack
from fenlei.config import Device, RunConfig, TrustConfig
from fenlei.errors import ConfigError

if TYPE_CHECKING:
    from fenlei.inference.classifier import Classifier
    from fenlei.inference.distributed import RunToLoad

PANEL = "For a model or an adapter of others (a run knows its own)"

Prompt = Annotated[
    str | None,
    typer.Option("--prompt", help="`zh`, `en`, or a template with {text}; an adapter's: what it was trained in.", rich_help_panel=PANEL),
]
MaxLength = Annotated[int | None, typer.Option("--max-length", help="Most tokens of an input; default: 1024.", rich_help_panel=PANEL)]
LongTexts = Annotated[
    Literal["truncate", "head-tail", "full", "windows"] | None,
    typer.Option("--long", help="A model: what is read of longer texts; default: truncate.", rich_help_panel=PANEL),
]
Base = Annotated[str | None, typer.Option("--base", help="An adapter: its base model, if it is not where it says.", rich_help_panel=PANEL)]


def load_named(
    run: str, device: Device, labels: str | None, trust: TrustConfig, int8: bool, verify: bool, multi_label: bool, reading: dict[str, Any]
) -> tuple[Classifier, list[str] | None]:
    """The classifier, and the labels to ask it among where they are not its own. `reading`: the options above that were given, by name."""
    from fenlei.artifact import MANIFEST, read_manifest
    from fenlei.inference.classifier import Classifier
    from fenlei.models.allocator import keep_freed_memory

    keep_freed_memory()
    is_run = (Path(run) / MANIFEST).exists()
    if multi_label and (labels is None or is_run):
        raise ConfigError("--multi-label is for a model or an adapter, with --labels: a run knows whether a text has any number of labels")
    if reading and (labels is None or is_run):
        raise ConfigError(f"{_flags(reading)}: for a model or an adapter of others, with --labels; a run reads texts as it was trained to")
    if labels is None:
        classifier = Classifier.load(run, device=device, trust=trust, int8=int8, verify=verify)
        tell_what_promises_lack(run, trust)
        return classifier, None
    from fenlei.data.label_file import given_labels
    from fenlei.data.labelling import Labelling
    from fenlei.inference.adapters import is_adapter

    manifest = read_manifest(run) if is_run else {}
    given = given_labels(labels, manifest.get("labels", ()), Labelling.from_json(manifest))
    if is_run:
        classifier = Classifier.load(run, device=device, trust=trust, int8=int8, verify=verify).with_notes(given)
        among = promised_among(classifier, list(given)) if trust.promises else list(given)
        tell_what_promises_lack(run, trust, bare=False)
        return classifier, among
    _check_reading(run, reading, adapter=is_adapter(run))
    if is_adapter(run):
        told: dict[str, Any] = {"labels": list(given), "multi_label": multi_label, **reading}
        return Classifier.load(run, device=device, trust=trust, int8=int8, verify=verify, **told), None
    if verify:
        raise ConfigError("--verify compares a run's files with their checksums, and a model without training has none; leave it out")
    if int8:
        raise ConfigError("--int8 is for runs that answer with a head, and zero-shot generates; leave it out")
    if trust.promises:
        raise ConfigError("a threshold or prediction sets take calibrating rows, and nothing was trained; use a run (train --tuning none)")
    classifier = Classifier.zero_shot(run, given, device=device, multi_label=multi_label, **reading)
    return classifier, list(given)  # else each row would be asked among the candidates that it has, or what looks like such


def _check_reading(run: str, reading: dict[str, Any], *, adapter: bool) -> None:
    """ConfigError for an option of the other kind, or a value that none takes; of an adapter without a prompt a note."""
    from fenlei.cli.display import notes

    foreign = {name: value for name, value in reading.items() if name == ("long" if adapter else "base")}
    if foreign:
        kind = "an adapter of others, of whose longer texts the beginning is read" if adapter else "a model, and no adapter of one"
        raise ConfigError(f"{_flags(foreign)}: {run} is {kind}; leave it out")
    RunConfig.from_options({name: value for name, value in reading.items() if name != "base"})
    if adapter and "prompt" not in reading:
        notes().print(
            f"{run}: reads the bare text; an adapter does not say what it was trained in, which with ms-swift is the model's chat template "
            "unless that was turned off: --prompt says it",
            markup=False,
        )


def _flags(reading: dict[str, Any]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in reading)


def promised_among(run: Classifier | RunToLoad, labels: list[str]) -> list[str]:
    """The labels, the run's own in its order; ConfigError for those that it can promise nothing of."""
    among = list(run.labels) if set(labels) == set(run.labels) else labels
    if not run.fitted_among(among):
        raise ConfigError(OTHER_LABELS)
    return among


def refuse_labels(who: str, known: int) -> NoReturn:
    """ConfigError of a head that is asked among labels: said once, and not of each row."""
    raise ConfigError(f"{who} answers with a head that knows its {known} labels and no other; leave --labels out")
