"""How good the weights are as they are: figures on the selecting rows of dev, uncalibrated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fenlei.evaluation.answers import answers_of
from fenlei.evaluation.calibration import label_probabilities, probabilities
from fenlei.evaluation.decision import Decision, best_threshold
from fenlei.evaluation.metrics import compute_metrics
from fenlei.evaluation.multi_label import compute_multi_label_metrics
from fenlei.inference.scoring import score
from fenlei.labels import LabelSet
from fenlei.models.devices import tokens_at_once
from fenlei.models.generate import GenerateMethod
from fenlei.models.head import HeadMethod
from fenlei.text.batches import by_token_budget
from fenlei.training.frozen import kept_states
from fenlei.training.ranks import Ranks
from fenlei.training.setup import Setup
from fenlei.training.spread import spread_by
from fenlei.training.vectors import score_vectors


def evaluation_of(setup: Setup, ranks: Ranks) -> Callable[[HeadMethod | GenerateMethod], dict[str, float]]:
    """What gives these figures by name; `selection` is the one that chooses the checkpoint."""
    labels = setup.dataset.labels
    gold = setup.dataset.gold(setup.dataset.selecting)
    vectors = kept_states(setup, setup.selecting)
    rows, lengths = range(len(setup.selecting)), setup.selecting.lengths
    own, budget = ranks.share(rows, lengths), tokens_at_once(setup.device)
    batches = [len(list(by_token_budget(lengths, ranks.share(rows, lengths, rank), budget))) for rank in range(ranks.world)]
    # Processes that spread the weights among them take part in each other's forward passes: all need as many.
    more = max(batches) - batches[ranks.rank] if spread_by() else 0

    def evaluate(method: HeadMethod | GenerateMethod) -> dict[str, float]:
        if vectors is not None and isinstance(method, HeadMethod):
            logits = score_vectors(method, vectors, setup.selecting, len(labels)).logits
        else:
            logits = score(method, setup.selecting, len(labels), autocast=setup.scoring_autocast, only=own).logits
            for _ in range(more):
                score(method, setup.selecting, len(labels), autocast=setup.scoring_autocast, only=[0])
            logits = ranks.summed(logits)
        if setup.dataset.multi_label:
            return _multi_label_figures(gold, logits, labels)
        metrics = compute_metrics(gold, probabilities(logits), labels)
        # Macro F1 moves in steps, and stands still where few rows or one answer decide it: the loss breaks ties.
        selection = metrics.macro_f1 - 1e-6 * min(metrics.log_loss, 1e3)
        return {"accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1, "loss": metrics.log_loss, "selection": selection}

    return evaluate


def _multi_label_figures(gold: np.ndarray, logits: np.ndarray, labels: LabelSet) -> dict[str, float]:
    """At the one threshold that is best for these rows: one half would say nothing of a network that is yet too modest."""
    shares = label_probabilities(logits)
    decision = Decision((best_threshold(shares.ravel(), gold.ravel()),) * len(labels))
    metrics = compute_multi_label_metrics(gold, answers_of(decision, shares), labels)
    selection = metrics.micro_f1 - 1e-6 * min(metrics.log_loss, 1e3)
    return {"micro_f1": metrics.micro_f1, "macro_f1": metrics.macro_f1, "loss": metrics.log_loss, "selection": selection}
