"""The options by which a run is asked for promises it was not trained with, and what is done where one cannot be kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from fenlei.cli.options import HELP
from fenlei.config import SetScore, TrustConfig
from fenlei.errors import ConfigError, FenleiError

T = TypeVar("T")

PANEL = "Trust options (default: the run's own)"

OTHER_LABELS = (
    "--labels: a threshold or prediction sets hold for the labels that the run was calibrated on, with what was said of them then; leave "
    "out --labels, or the promises"
)
"""Why labels given with a request and promises do not go together."""

BARE_TEXTS = "Texts without candidates of their own get no threshold and no prediction sets: no dev row was asked among all labels."

MinConfidence = Annotated[float | None, typer.Option("--min-confidence", help=HELP["min_confidence"], rich_help_panel=PANEL)]
TargetAccuracy = Annotated[float | None, typer.Option("--target-accuracy", help=HELP["target_accuracy"], rich_help_panel=PANEL)]
SetCoverage = Annotated[float | None, typer.Option("--set-coverage", help=HELP["set_coverage"], rich_help_panel=PANEL)]
SetScoreOption = Annotated[SetScore, typer.Option("--set-score", help=HELP["set_score"], rich_help_panel=PANEL)]
SetByClass = Annotated[bool, typer.Option("--set-by-class", help=HELP["set_by_class"], rich_help_panel=PANEL)]


def asked(
    min_confidence: float | None, target_accuracy: float | None, set_coverage: float | None, set_score: SetScore, set_by_class: bool
) -> TrustConfig:
    """The options as one value; ConfigError where they contradict each other."""
    trust = TrustConfig(min_confidence, target_accuracy, set_coverage, set_score, set_by_class)
    problems = [*trust.problems(), *filter(None, [trust.without_effect])]
    if problems:
        raise ConfigError("\n".join(problems))
    return trust


def tell_what_promises_lack(run: str | Path, trust: TrustConfig, *, bare: bool = True) -> None:
    """Notes where promises are asked for: what `extend` says of the rows that they are fitted on; and, where texts may be `bare`, without
    candidates of their own, that the run keeps none for such.
    """
    if not trust.promises:
        return
    from fenlei.artifact import read_manifest
    from fenlei.cli.display import notes
    from fenlei.data.extension import MAY_HAVE_TRAINED, OF_A_SAMPLE
    from fenlei.inference.candidates import was_fitted_among

    manifest = read_manifest(run)
    own, extended = tuple(manifest["labels"]), manifest.get("extended_from", {})
    if bare and not was_fitted_among(manifest, own, own):
        notes().print(BARE_TEXTS)
    if extended.get("dev_is_natural") is False:
        notes().print(f"fenlei extend: {OF_A_SAMPLE}", markup=False)
    if extended.get("dev_may_have_trained"):
        notes().print(f"fenlei extend: {MAY_HAVE_TRAINED}", markup=False)


def shown_first(call: Callable[[], T]) -> tuple[T, FenleiError | None]:
    """What a training returns, and the promise that it cannot keep: the run is whole, and is shown before that is raised."""
    from fenlei.training.promises import UnmetPromiseError

    try:
        return call(), None
    except UnmetPromiseError as error:
        return error.result, error
