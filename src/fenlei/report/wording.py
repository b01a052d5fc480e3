"""Figures in words: what the terminal tables, the page and the Markdown say alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fenlei.evaluation.metrics import Metrics

BASELINE = "TF-IDF baseline"
EQUAL = 0.0005
"""Accuracies nearer than this print alike."""


@dataclass(frozen=True)
class Figure:
    """One headline figure, of the model and of the baseline (empty where there is none)."""

    name: str
    model: str
    baseline: str


def headline(metrics: Metrics, baseline: Metrics | None) -> tuple[Figure, ...]:
    """The figures to read first."""

    def figure(name: str, key: str, show: Any) -> Figure:
        return Figure(name, show(getattr(metrics, key)), show(getattr(baseline, key)) if baseline else "")

    return (
        figure("Accuracy", "accuracy", percent),
        figure("95 % interval", "accuracy_interval", interval),
        figure("Macro F1", "macro_f1", percent),
        figure("Macro precision", "macro_precision", percent),
        figure("Macro recall", "macro_recall", percent),
        figure("Log-loss", "log_loss", three_places),
        figure("Expected calibration error", "expected_calibration_error", three_places),
    )


def verdict(metrics: Metrics, baseline: Metrics | None) -> str:
    """One sentence on the model beside the baseline; plain where the baseline wins."""
    if baseline is None:
        return f"No {BASELINE} was kept with this run, so nothing shows what a simple classifier would reach."
    gain = metrics.accuracy - baseline.accuracy
    figures = f"{percent(metrics.accuracy)} against {percent(baseline.accuracy)}"
    if abs(gain) < EQUAL:
        return f"The model and the {BASELINE} are level at {percent(metrics.accuracy)}."
    if gain > 0:
        return f"The model is {100 * gain:.1f} points more accurate than the {BASELINE}: {figures}."
    return (
        f"The {BASELINE} is better: the model is {-100 * gain:.1f} points less accurate ({figures})."
        " Train longer, on more rows or from a larger model, or use the baseline."
    )


def facts(manifest: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What a run's manifest says of the model, as names and values; what it does not say is left out."""
    data, base = manifest.get("data", {}), manifest.get("base_model", {})
    named = {
        "Base model": base.get("name"),
        "Method": manifest.get("method"),
        "Tuning": manifest.get("tuning"),
        "Head": manifest.get("head"),
        "Labels": len(manifest["labels"]) if "labels" in manifest else None,
        "Rows trained on": data.get("rows", {}).get("train"),
        "Longest input": f"{manifest['max_length']:,} tokens" if "max_length" in manifest else None,
        "Confidence": _calibration(manifest),
        "Trained": manifest.get("created"),
    }
    return tuple((name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in named.items() if value is not None)


def percent(share: float) -> str:
    """0.9184 as 91.8 %."""
    return f"{100 * share:.1f} %"


def interval(bounds: tuple[float, float]) -> str:
    """(0.913, 0.9235) as 91.3 to 92.4 %."""
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"


def three_places(value: float) -> str:
    """0.12345 as 0.123."""
    return f"{value:.3f}"


def _calibration(manifest: Mapping[str, Any]) -> str | None:
    if "calibrated" not in manifest:
        return None
    return f"calibrated, temperature {manifest['temperature']:.3f}" if manifest["calibrated"] else "not calibrated"
