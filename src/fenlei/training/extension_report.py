"""What an extension has brought, what it has cost, and what became of the classes that were known."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fenlei.evaluation.change import RecallChange, recall_changes
from fenlei.evaluation.metrics import ClassMetrics, compute_metrics, wilson_interval
from fenlei.inference.trust import Trust, load_scores
from fenlei.labels import LabelSet
from fenlei.training.fit import TrainResult
from fenlei.training.model_card import escaped

ASKED = 0.5
"""A forward pass beside an optimiser step: half of it for adapters, a third where all weights learn."""


@dataclass(frozen=True)
class Cost:
    """Of an extension, beside training again on all rows."""

    new_rows: int
    replayed_rows: int
    epochs: float
    seconds: float
    """In which the run was asked about its rows and learned from them; a resumed one counts from its checkpoint."""
    retraining_rows: int
    """Training rows of the run, and of every extension, without those replayed."""
    retraining_epochs: float
    """As the run was trained."""

    @property
    def share(self) -> float:
        """Of what retraining would cost, in rows that go through the network: one that is only asked counts as ASKED."""
        rows = self.new_rows + self.replayed_rows
        return rows * (self.epochs + ASKED) / (self.retraining_rows * self.retraining_epochs)


@dataclass(frozen=True)
class Extension:
    """A run with more classes than the one it comes from."""

    training: TrainResult
    changes: tuple[RecallChange, ...]
    """Recall of the known classes, first of all together; empty where dev has no rows of them."""
    new: tuple[ClassMetrics, ...]
    """The new classes among all, on all dev rows."""
    dev_rows: int
    cost: Cost
    row_candidates: bool = False
    """Whether dev rows were asked among candidates of their own: before, among those that the run knew."""

    def recall_interval(self, one: ClassMetrics) -> tuple[float, float] | None:
        """Wilson 95 % interval of its recall; None where it has no dev rows."""
        return wilson_interval(round(one.recall * one.support), one.support) if one.support else None

    def to_json(self) -> dict[str, Any]:
        """As plain values, without what the run itself holds."""
        return {
            "known_classes": [{**asdict(one), "change": one.change} for one in self.changes],
            "new_classes": [{**asdict(one), "recall_interval": self.recall_interval(one)} for one in self.new],
            "dev_rows": self.dev_rows,
            "cost": {**asdict(self.cost), "share_of_retraining": self.cost.share},
        }


def compared(
    training: TrainResult, known: LabelSet, before: dict[str, np.ndarray], trust: Trust, cost: Cost, *, row_candidates: bool
) -> Extension:
    """From what the run answered before (ids by part of dev) and what the finished extension kept of its own dev scores."""
    dev = load_scores(training.out)
    parts = ("selecting", "calibrating")
    gold = np.concatenate([dev[part].label_ids for part in parts])
    shares = trust.calibration.probabilities(np.concatenate([dev[part].logits for part in parts]))
    metrics = compute_metrics(gold, shares, LabelSet(training.labels))
    earlier = np.concatenate([before[part] for part in parts])
    changes = recall_changes(gold, earlier, shares.argmax(axis=1), known)
    return Extension(training, changes, metrics.classes[len(known) :], len(gold), cost, row_candidates)


def card_section(result: Extension) -> str:
    """Markdown for the new run's model card."""
    known = [
        f"| {escaped(one.name or 'all known classes')} | {one.before:.3f} | {one.after:.3f} | {one.change:+.3f} ({one.interval[0]:+.3f} "
        f"to {one.interval[1]:+.3f}) | {one.rows:,} |"
        for one in result.changes
    ]
    new = [f"| {escaped(one.name)} | {one.precision:.3f} | {one.recall:.3f} | {one.f1:.3f} | {one.support:,} |" for one in result.new]
    cost = result.cost
    rows = result.changes[0].rows if result.changes else 0
    replayed = f"{cost.new_rows:,} new and {cost.replayed_rows:,} replayed rows"
    among = ""
    if result.row_candidates:
        among = "; rows that offer candidates\nare asked among these, and were asked among those of them that the run knew"
    return f"""
## Extended

By {len(result.new)} classes, from {replayed}, {cost.epochs:g} times each: {cost.share:.0%} of the cost of
training again on all {cost.retraining_rows:,} rows. Of the {rows:,} dev rows of known classes, the share that was right before,
and that is right now, when the answer may be a new class too{among}:

| known class | recall before | after | change (95 % interval) | rows |
|---|---|---|---|---|
{chr(10).join(known)}

| new class | precision | recall | F1 | rows |
|---|---|---|---|---|
{chr(10).join(new)}
"""
