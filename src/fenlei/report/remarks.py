"""What there is to say of an evaluation besides its figures: what was not read, what was not fitted, what the figures cannot tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fenlei.data.examples import Example
from fenlei.errors import first_few
from fenlei.inference.passages import where_it_counts
from fenlei.labels import LabelSet

if TYPE_CHECKING:
    from fenlei.inference.prediction import Prediction


def remarks(examples: Sequence[Example], predictions: Sequence[Prediction], labels: LabelSet) -> Iterator[str]:
    """Lines to print, of rows and what was said of them; `labels` are the columns of the figures."""
    cut = [one.tokens_cut for one in predictions if one.tokens_cut]
    if cut:
        yield f"{len(cut):,} of {len(examples):,} texts were longer than the run takes: {sum(cut):,} tokens were not read"
    counted = where_it_counts(predictions)
    if counted:
        yield counted
    raw = sum(not one.calibrated for one in predictions)
    if raw == len(predictions):
        yield "The probabilities are not calibrated: confidence, log-loss and calibration error are those of the raw network."
    elif raw:
        yield (
            f"{raw:,} of {len(predictions):,} rows were asked among labels that nothing was fitted on; their probabilities are the raw "
            "network's"
        )
    rows = Counter(label for example in examples for label in example.all_labels)
    absent = [name for name in labels if not rows[name]]
    if absent:
        yield f"{len(absent)} of {len(labels)} classes have no row here and count 0 in the macro figures: {first_few(absent)}"
