"""Which texts of a pool to label next: where the run wavers, what it has not seen the like of, and no two alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from fenlei.audit.same_text import groups, plain
from fenlei.data.annotated import LABEL
from fenlei.data.columns import NO_CLASS, learned_from
from fenlei.data.encodings import read_once
from fenlei.data.examples import Example
from fenlei.data.formats import ANNOTATED
from fenlei.data.labelling import Labelling
from fenlei.data.readers import check_labelled, file_layout, read_examples
from fenlei.data.sources import split_files
from fenlei.errors import ConfigError, DataError
from fenlei.evaluation.novelty import energy, joint_energy
from fenlei.inference.classifier import Classifier
from fenlei.inference.scoring import Scores
from fenlei.inference.windows import offered_labels

NOVEL_EVERY = 3
"""Each third text is picked for novelty, the others for uncertainty: what is new to the run is worth a look, but may be noise."""
CANDIDATES = 50
"""Texts considered for each one picked, by either measure: diversity may pass over many, but not down to what the run is sure of."""
FEATURES = 2**18
ADDED = ("confidence", "uncertainty", "novelty", "reason")
"""What a written suggestion has beside the columns of its row and its label."""
REASONS = ("uncertain", "novel")


@dataclass(frozen=True)
class Suggestion:
    """A text worth labelling, with the run's own answer to start from."""

    example: Example
    label: str
    confidence: float
    uncertainty: float
    """1 less the margin between the two likeliest labels: 1 where the run cannot choose. Multi-label: 1 less the confidence."""
    novelty: float
    """Share of the pool that is less strange to the run, between 0 and 1."""
    reason: str
    """One of REASONS."""
    labels: tuple[str, ...] | None = None
    """Multi-label: every label that the run gives; None where a text has one."""

    @property
    def answer(self) -> str | list[str]:
        """The label, or the list of them."""
        return self.label if self.labels is None else list(self.labels)


def suggest(
    classifier: Classifier,
    pool: str | Path,
    n: int,
    *,
    text_column: str | None = None,
    progress: Callable[[int], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> list[Suggestion]:
    """At most `n` texts of a file, or of the train files of a folder or a data set on a hub, the most useful first; of copies the first.

    Uncertainty is the margin of the calibrated probabilities; novelty the score that the run measures it by (see evaluation/novelty.py),
    energy where it measures none. Each pick's rank by its measure is weighed by its distance from those picked before (maximal marginal
    relevance, Carbonell and Goldstein, SIGIR 1998). Of a file of an annotation tool, texts that have an answer already are left out, and
    `announce` is told. ConfigError for n below 1, DataError where a row of the pool has no text, a label already, an empty list of
    candidates, or a column that a suggestion adds, unless an earlier round of suggestions wrote it.
    """
    if n < 1:
        raise ConfigError(f"n must be at least 1, was {n}")
    if classifier.pairs:
        raise ConfigError("suggest looks at single texts, and this run was trained on pairs of texts")
    rows = _unlabelled(classifier, pool, text_column, announce or (lambda _: None))
    examples = [rows[places[0]] for places in groups(plain(row.text) or row.text for row in rows).values()]
    among = offered_labels(classifier, examples)
    scores = classifier.logits([example.text for example in examples], labels=among, progress=progress)
    predictions, names = classifier.answer(scores, labels=among), classifier.columns(among, len(examples))
    confidence = np.array([one.confidence for one in predictions])
    shares = np.array([[one.probabilities.get(name, 0.0) for name in names] for one in predictions])
    uncertainty = 1.0 - confidence if classifier.multi_label else _uncertainty(shares)
    strangeness = _strangeness(classifier, scores)
    novelty = strangeness.argsort(kind="stable").argsort(kind="stable") / max(1, len(strangeness) - 1)
    return [
        Suggestion(
            example=examples[place],
            label=predictions[place].label,
            confidence=float(confidence[place]),
            uncertainty=float(uncertainty[place]),
            novelty=float(novelty[place]),
            reason=reason,
            labels=predictions[place].labels,
        )
        for place, reason in _pick([example.text for example in examples], uncertainty, novelty, n)
    ]


def choices(classifier: Classifier, picked: Sequence[Suggestion]) -> tuple[str, ...]:
    """What an annotator chooses among: the labels of the run, and those that picked rows offer beside them."""
    offered = offered_labels(classifier, [one.example for one in picked]) or ()
    return tuple(dict.fromkeys([*classifier.labels, *(name for names in offered for name in names or ())]))


def is_label(name: str) -> bool:
    """Whether readers take a column of this name, whatever its case, for the label that is written."""
    return name.strip().lower() == LABEL


def _unlabelled(classifier: Classifier, pool: str | Path, text_column: str | None, tell: Callable[[str], None]) -> list[Example]:
    """The rows to pick from; DataError where one has a label or a column of a suggestion already, or none is left."""
    run = classifier.describe()
    columns = learned_from(run)
    found: list[Example] = []
    left_out = 0
    for file in split_files(pool).train:
        rows = list(read_examples(file, text_column=text_column, labelled=False, **columns))
        _refuse_labelled(file, rows, text_column, columns["usual_text"])
        answered = _answered(file, text_column, columns["usual_text"], Labelling.from_json(run))
        found += [row for row in rows if row.line not in answered]
        left_out += sum(row.line in answered for row in rows)
    if not found:
        raise DataError(f"{pool}: expected texts to label, found {left_out:,} that are annotated already; give others")
    for row in found:
        _refuse_clash(row)
    if left_out:
        tell(f"{left_out:,} texts are left out: they are annotated already")
    return found


def _refuse_labelled(file: Path, rows: Sequence[Example], text_column: str | None, usual_text: Sequence[str]) -> None:
    filled = ((row, name) for row in rows for name, value in row.columns.items() if is_label(name) and value not in (None, "", []))
    first = next(filled, None)
    if first is None:
        return
    row, name = first
    if row.columns[name] == NO_CLASS and _has_no_class(file, text_column, usual_text, name):
        return
    raise DataError(
        f"{row.where}: the pool has a label already, {row.columns[name]!r}, in whose place the run's answer "
        "would go; give the rows without labels, or rename the column"
    )


def _refuse_clash(row: Example) -> None:
    """DataError for a column that one of ADDED would overwrite; a row with all of them has an earlier round's, which are written anew."""
    taken = [name for name in ADDED if name in row.columns]
    if taken and not (len(taken) == len(ADDED) and row.columns["reason"] in REASONS):
        raise DataError(f"{row.where}: the pool already has a column {taken[0]!r}, which would be overwritten; rename it")


def _has_no_class(file: Path, text_column: str | None, usual_text: Sequence[str], label_column: str) -> bool:
    """Whether the file names classes, and every row has the id of none. Standard input or a pipe names none, and is not read twice."""
    if read_once(file):
        return False
    try:
        check_labelled(file, text_column=text_column, pair_column=None, label_column=label_column, usual_text=usual_text)
    except DataError:
        return True
    return False


def _answered(file: Path, text_column: str | None, usual_text: Sequence[str], labelling: Labelling) -> set[int]:
    """The lines of an annotation tool's file that have an answer, be it one that settles nothing; none of any other file."""
    if read_once(file):
        return set()
    if file_layout(file, text_column=text_column, labelled=False, usual_text=usual_text).format not in ANNOTATED:
        return set()
    lines: set[int] = set()
    rows = read_examples(
        file, text_column=text_column, labelling=labelling, on_bad_row=lambda line, _: lines.add(line), usual_text=usual_text
    )
    with suppress(DataError):  # nothing is answered yet
        for row in rows:
            lines.add(row.line)
    return lines


def _uncertainty(answers: np.ndarray) -> np.ndarray:
    """1 less the margin of probabilities (rows, labels): float (rows,)."""
    if answers.shape[1] < 2:
        return np.zeros(len(answers))
    top_two = np.partition(answers, -2, axis=1)[:, -2:]
    return np.asarray(1.0 - np.abs(top_two[:, 1] - top_two[:, 0]))


def _strangeness(classifier: Classifier, scores: Scores) -> np.ndarray:
    """Higher for stranger texts, by the run's own rule where it has one: float64 (rows,)."""
    if classifier.trust.novelty is not None:
        return classifier.trust.novelty.raw(scores)
    return joint_energy(scores.logits) if classifier.multi_label else energy(scores.logits)


def _pick(texts: Sequence[str], uncertainty: np.ndarray, novelty: np.ndarray, n: int) -> list[tuple[int, str]]:
    """Places with reasons, the first pick first."""
    most = min(len(texts), n * CANDIDATES)
    chosen = np.union1d(np.argsort(-uncertainty, kind="stable")[:most], np.argsort(-novelty, kind="stable")[:most])
    worth = {"uncertain": _ranks(uncertainty[chosen]), "novel": _ranks(novelty[chosen])}
    features = _features([texts[place] for place in chosen])
    nearest = np.zeros(len(chosen))
    free = np.ones(len(chosen), dtype=bool)
    picked = []
    for turn in range(min(n, len(chosen))):
        reason = "novel" if turn % NOVEL_EVERY == NOVEL_EVERY - 1 else "uncertain"
        place = int(np.argmax(np.where(free, worth[reason] * (1.0 - nearest), -1.0)))
        free[place] = False
        nearest = np.maximum(nearest, np.clip((features @ features[place].T).toarray().ravel(), 0.0, 1.0))
        picked.append((int(chosen[place]), reason))
    return picked


def _ranks(values: np.ndarray) -> np.ndarray:
    """From just above 0 for the least to 1 for the greatest."""
    return np.asarray((values.argsort(kind="stable").argsort(kind="stable") + 1) / len(values))


def _features(texts: Sequence[str]) -> sparse.csr_matrix:
    """Character sequences of each text, of length 1: their products are cosines."""
    vectorizer = HashingVectorizer(analyzer="char", ngram_range=(2, 3), n_features=FEATURES, alternate_sign=False, dtype=np.float32)
    return vectorizer.transform(texts)
