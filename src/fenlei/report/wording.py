"""Figures in words: what the terminal tables, the page and the Markdown say alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fenlei.data.labelling import Labelling
from fenlei.evaluation.calibration import calibration_told
from fenlei.evaluation.figures import AnyMetrics, main_figure
from fenlei.evaluation.metrics import Metrics
from fenlei.evaluation.multi_label import MultiLabelMetrics
from fenlei.report.comparison import Contender
from fenlei.report.confidence import Confidence
from fenlei.report.levels import Level

BASELINE = "TF-IDF baseline"
EQUAL = 0.0005
"""Accuracies nearer than this print alike."""
ROUNDING = 1e-9
"""A mean of ones may be off by so much."""


@dataclass(frozen=True)
class Figure:
    """One headline figure, of the model and of the baseline (empty where there is none)."""

    name: str
    model: str
    baseline: str
    spread: str = ""
    """What chance does to the model's figure; empty where it was not computed."""


def headline(metrics: AnyMetrics, baseline: AnyMetrics | None) -> tuple[Figure, ...]:
    """The figures to read first."""

    def figure(name: str, key: str, show: Any, show_spread: Any = None) -> Figure:
        bounds = metrics.intervals.get(key)
        spread = show_spread(bounds) if show_spread and bounds else ""
        return Figure(name, show(getattr(metrics, key)), show(getattr(baseline, key)) if baseline else "", spread)

    floor = metrics.calibration_noise_floor
    error = figure("Expected calibration error", "expected_calibration_error", three_places)
    error = error if floor is None else replace(error, spread=f"{floor:.3f} by chance alone")
    if isinstance(metrics, MultiLabelMetrics):
        return (
            figure("Micro F1", "micro_f1", percent, interval),
            figure("Macro F1", "macro_f1", percent, interval),
            figure("Samples F1", "samples_f1", percent, interval),
            figure("Micro precision", "micro_precision", percent),
            figure("Micro recall", "micro_recall", percent),
            replace(figure("All labels right", "accuracy", percent), spread=interval(metrics.accuracy_interval)),
            figure("Hamming loss", "hamming_loss", four_places, narrow_span),
            figure("Mean average precision", "mean_average_precision", percent),
            figure("Labels a row, given", "predicted_a_row", two_places),
            figure("Labels a row, labelled", "labels_a_row", two_places),
            figure("Log-loss", "log_loss", three_places, span),
            error,
        )
    assert baseline is None or isinstance(baseline, Metrics)
    return (
        replace(figure("Accuracy", "accuracy", percent), spread=interval(metrics.accuracy_interval)),
        figure("Macro F1", "macro_f1", percent, interval),
        figure("Macro precision", "macro_precision", percent),
        figure("Macro recall", "macro_recall", percent),
        figure("Weighted F1", "weighted_f1", percent, interval),
        *(_top(k, metrics, baseline) for k in metrics.top_k),
        figure("Matthews correlation", "matthews", three_places, span),
        figure("Log-loss", "log_loss", three_places, span),
        figure("Brier score", "brier", three_places, span),
        error,
    )


def _top(k: int, metrics: Metrics, baseline: Metrics | None) -> Figure:
    bounds = metrics.intervals.get(f"top_{k}")
    beside = percent(baseline.top_k[k]) if baseline else ""
    return Figure(f"Top-{k} accuracy", percent(metrics.top_k[k]), beside, interval(bounds) if bounds else "")


COMPARED = ("Accuracy", "95 % interval", "Macro F1", "Log-loss")
COMPARED_SETS = ("Micro F1", "All labels right", "Macro F1", "Log-loss")


def compared(metrics: AnyMetrics, *, rounded: bool = False) -> dict[str, str]:
    """What stands in a row of a comparison, by its heading; of `rounded` probabilities without their log-loss."""
    figures = percent(metrics.accuracy), percent(metrics.macro_f1), "-" if rounded else three_places(metrics.log_loss)
    if isinstance(metrics, MultiLabelMetrics):
        return dict(zip(COMPARED_SETS, (percent(metrics.micro_f1), *figures), strict=True))
    return dict(zip(COMPARED, (figures[0], interval(metrics.accuracy_interval), *figures[1:]), strict=True))


def comparison_headings(metrics: AnyMetrics) -> tuple[str, ...]:
    """Of the columns of a comparison, the first of them without one."""
    return ("", *compared(metrics), "Right alone", "Wrong alone", "McNemar p")


def contender_cells(one: Contender) -> tuple[str, ...]:
    """A classifier in a comparison."""
    alone = ("", "") if one.test is None else (f"{one.test.only_second:,}", f"{one.test.only_first:,}")
    return (one.name, *compared(one.metrics, rounded=one.rounded).values(), *alone, p_value(one.p_value))


def class_headings(baseline: AnyMetrics | None) -> tuple[str, ...]:
    """Of the columns of figures by class."""
    return ("Class", "Precision", "Recall", "F1", *(["Baseline F1"] if baseline else []), "Rows")


def class_cells(metrics: AnyMetrics, baseline: AnyMetrics | None) -> Iterator[tuple[str, ...]]:
    """A row each class, in label order."""
    for at, one in enumerate(metrics.classes):
        figures = [one.precision, one.recall, one.f1, *([baseline.classes[at].f1] if baseline else [])]
        yield (one.name, *map(three_places, figures), f"{one.support:,}")


def level_cells(level: Level) -> tuple[str, ...]:
    """A level of a hierarchy under LEVEL_HEADINGS."""
    figures = percent(level.accuracy), interval(level.interval), percent(level.micro_f1), percent(level.macro_f1)
    return (str(level.level), f"{level.classes:,}", *figures)


LEVEL_HEADINGS = ("Level", "Classes", "Right", "95 % interval", "Micro F1", "Macro F1")


def verdict(metrics: AnyMetrics, baseline: AnyMetrics | None) -> str:
    """One sentence on the model beside the baseline; plain where the baseline wins."""
    if baseline is None:
        return f"No {BASELINE} was measured on these rows, so nothing shows what a simple classifier would reach."
    own, other = main_figure(metrics), main_figure(baseline)
    gain = own.value - other.value
    figures = f"{percent(own.value)} against {percent(other.value)}"
    if abs(gain) < EQUAL:
        return f"The model and the {BASELINE} are level at {percent(own.value)}."
    if isinstance(metrics, MultiLabelMetrics):
        side = "above" if gain > 0 else "below"
        above = f"The model's {own.name} is {100 * abs(gain):.1f} points {side} that of the {BASELINE}: {figures}."
        return above if gain > 0 else f"{above} Train longer, on more rows or from a larger model, or use the baseline."
    if gain > 0:
        return f"The model is {100 * gain:.1f} points more accurate than the {BASELINE}: {figures}."
    return (
        f"The {BASELINE} is better: the model is {-100 * gain:.1f} points less accurate ({figures})."
        " Train longer, on more rows or from a larger model, or use the baseline."
    )


def confidence_lines(metrics: AnyMetrics, confidence: Confidence) -> Iterator[str]:
    """What the confidence was worth: its calibration, the threshold and the sets."""
    floor = metrics.calibration_noise_floor
    chance = "" if floor is None else f"; a perfect model would show {three_places(floor)} on as many rows"
    before = f"{three_places(confidence.error_before)} before calibration, "
    yield f"Expected calibration error: {before}{three_places(metrics.expected_calibration_error)} as answered{chance}"
    silence, sets = confidence.silence, confidence.sets
    if silence is not None:
        right = "" if silence.accuracy is None else f", {percent(silence.accuracy)} of them right"
        told = f"Answered from confidence {silence.min_confidence:.6g} on: {percent(silence.coverage)} of the rows{right}"
        yield told + _unpromised(silence.unpromised)
    if sets is not None:
        size = f"{sets.mean_size:.2f} labels a set, {percent(sets.empty)} empty"
        told = f"Prediction sets ({sets.score}): {percent(sets.reached)} hold the label, {percent(sets.asked)} asked; {size}"
        yield told + _unpromised(sets.unpromised)


def facts(manifest: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What a run's manifest says of the model, as names and values; what it does not say is left out."""
    data, base = manifest.get("data", {}), manifest.get("base_model", {})
    named = {
        "Base model": base.get("name"),
        "Method": manifest.get("method"),
        "Tuning": manifest.get("tuning"),
        "Head": manifest.get("head"),
        "Labels": len(manifest["labels"]) if "labels" in manifest else None,
        "Labels a row": "any number" if Labelling.from_json(manifest).multi_label else None,
        "Rows trained on": data.get("rows", {}).get("train"),
        "Longest input": f"{manifest['max_length']:,} tokens" if "max_length" in manifest else None,
        "Longer texts": manifest.get("length_rule"),
        "Confidence": calibration_told(manifest) if "calibrated" in manifest else None,
        "Trained": manifest.get("created"),
    }
    return tuple((name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in named.items() if value is not None)


def percent(share: float) -> str:
    """0.9184 as 91.8 %; 100.0 % is all and 0.0 % is nothing: 0.9997 is > 99.9 %."""
    shown = f"{100 * share:.1f} %"
    if shown == "100.0 %" and share < 1 - ROUNDING:
        return "> 99.9 %"
    return "< 0.1 %" if shown == "0.0 %" and share > ROUNDING else shown


def interval(bounds: tuple[float, float]) -> str:
    """(0.913, 0.9235) as 91.3 to 92.4 %."""
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"


def span(bounds: tuple[float, float]) -> str:
    """(0.2512, 0.2931) as 0.251 to 0.293."""
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def p_value(value: float | None) -> str:
    """0.0372 as 0.037; nothing where there was no test."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def two_places(value: float) -> str:
    """1.2345 as 1.23."""
    return f"{value:.2f}"


def four_places(value: float) -> str:
    """0.01234 as 0.0123."""
    return f"{value:.4f}"


def narrow_span(bounds: tuple[float, float]) -> str:
    """(0.00512, 0.00931) as 0.0051 to 0.0093."""
    return f"{bounds[0]:.4f} to {bounds[1]:.4f}"


def three_places(value: float) -> str:
    """0.12345 as 0.123."""
    return f"{value:.3f}"


def _unpromised(rows: int) -> str:
    """How many rows a promise was not made for; nothing where it was for all."""
    return f"; {rows:,} more rows, asked among labels that nothing was fitted on, do not count" if rows else ""
