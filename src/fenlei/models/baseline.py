"""The bar a language model has to clear: TF-IDF of short character or word sequences, and a linear support vector machine."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from fenlei.errors import ArtifactError, DataError

Recipe = tuple[tuple[str, tuple[int, int]], ...]
"""Analyzers with their shortest and longest n-gram, side by side."""

CHARACTERS: Recipe = (("char", (1, 3)),)
"""For scripts written without spaces."""
WORDS: Recipe = (("word", (1, 2)), ("char_wb", (2, 4)))
"""For scripts with spaces: words, and pieces of words for inflections and typing errors (clinc150_en: 0.913, words alone 0.888)."""

MOSTLY = 0.3
"""Share of letters from which a data set counts as written without spaces: names and numbers in it are often Latin."""
LONGEST_TEXT, ALL_TEXTS = 20_000, 10_000_000
"""Characters read of one text, and of all training texts together: keeps the fit below a minute and 1 GB."""
MOST_FEATURES, MOST_WEIGHTS = 200_000, 20_000_000
"""Features kept, the commonest first; fewer where features times labels would be more than this many weights."""
WINDOW = 8_192
"""Texts turned into features at once."""

FORMAT_VERSION = 1
SETTINGS, ARRAYS = "baseline.json", "baseline.safetensors"

_LETTER = re.compile(r"[^\W\d_]")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"  # Japanese, Chinese, Korean
)


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fitted baseline. `fit` or `load` makes one."""

    vectorizers: tuple[TfidfVectorizer, ...]
    weights: np.ndarray
    """float32 (labels, features)"""
    bias: np.ndarray
    """float32 (labels,)"""
    characters: int
    """How much of the beginning of each text is read."""
    temperature: float = 1.0
    """Margins are no logits: fitted on calibrating rows and set with dataclasses.replace, it makes them comparable. `logits` ignores it."""
    shift: float = 0.0
    """Multi-label: added to margins / temperature, fitted and set likewise."""
    thresholds: tuple[float, ...] | None = None
    """Multi-label: the probability from which each label is given, fitted and set likewise; None where none was."""

    @classmethod
    def fit(cls, texts: Sequence[str], label_ids: Sequence[int] | np.ndarray, n_labels: int, *, seed: int = 0) -> Baseline:
        """Fitted to texts and their label ids (rows,), or multi-label bool (rows, labels): a machine for each label.

        DataError where there are no rows, or no text has a character to learn from.
        """
        gold = np.asarray(label_ids, dtype=np.int64)
        if len(texts) != len(gold) or len(gold) == 0:
            raise DataError(f"expected as many label ids as texts, and at least one; found {len(gold)} ids for {len(texts)} texts")
        characters = _characters_read(texts)
        vectorizers, features = _fit_vectorizers([text[:characters] for text in texts], _recipe(texts), n_labels)
        return cls(vectorizers, *_fit_weights(features, gold, n_labels, seed), characters)

    @property
    def n_labels(self) -> int:
        return len(self.bias)

    @property
    def description(self) -> str:
        """What the features are, in words."""
        kinds = {"char": "characters", "word": "words", "char_wb": "characters within words"}
        parts = [f"{one.ngram_range[0]} to {one.ngram_range[1]} {kinds[one.analyzer]}" for one in self.vectorizers]
        return f"TF-IDF of {' and '.join(parts)}, linear SVM"

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Margins, float32 (rows, labels). A row does not depend on the rows beside it."""
        scores = np.empty((len(texts), self.n_labels), dtype=np.float32)
        for start in range(0, len(texts), WINDOW):
            cut = [text[: self.characters] for text in texts[start : start + WINDOW]]
            features = sparse.hstack([one.transform(cut) for one in self.vectorizers], format="csr")
            scores[start : start + WINDOW] = features @ self.weights.T + self.bias
        return scores

    def save(self, folder: str | Path) -> None:
        """Writes baseline.json and baseline.safetensors; the folder is made if need be."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        arrays = {"weights": np.ascontiguousarray(self.weights), "bias": self.bias}
        parts = []
        for at, one in enumerate(self.vectorizers):
            arrays[f"idf.{at}"] = one.idf_
            parts.append({"analyzer": one.analyzer, "ngrams": list(one.ngram_range), "vocabulary": one.get_feature_names_out().tolist()})
        settings: dict[str, Any] = {"format_version": FORMAT_VERSION, "characters": self.characters, "temperature": self.temperature}
        settings |= {"shift": self.shift, "thresholds": self.thresholds, "parts": parts}
        save_file(arrays, target / ARRAYS)
        (target / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")  # ASCII: half a surrogate pair is a legal n-gram

    @classmethod
    def load(cls, folder: str | Path) -> Baseline:
        """From a folder that `save` wrote: the same answers to the bit. ArtifactError where it is incomplete, damaged or newer."""
        source = Path(folder)
        try:
            settings = json.loads((source / SETTINGS).read_text(encoding="utf-8"))
            if settings["format_version"] != FORMAT_VERSION:
                raise ArtifactError(f"{source}: a baseline of format {settings['format_version']}, this fenlei reads {FORMAT_VERSION}")
            arrays = load_file(source / ARRAYS)
            vectorizers = tuple(_restored(part, arrays[f"idf.{at}"]) for at, part in enumerate(settings["parts"]))
            thresholds = settings.get("thresholds")
            return cls(
                vectorizers, arrays["weights"], arrays["bias"], settings["characters"], settings["temperature"],
                settings.get("shift", 0.0), None if thresholds is None else tuple(thresholds),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ArtifactError(f"{source}: not a readable baseline ({error}); restore the folder or train again") from error


def cross_validated_logits(
    texts: Sequence[str], label_ids: Sequence[int] | np.ndarray, n_labels: int, *, fold_of: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Margins of every text from a baseline fitted without the rows of its own fold: float32 (rows, labels).

    label_ids (rows,), or multi-label bool (rows, labels); fold_of: int (rows,), at least two different ones. The features are chosen and
    weighed on all texts, which takes no label into account and a fraction of the time. DataError as for `Baseline.fit`.
    """
    gold = np.asarray(label_ids, dtype=np.int64)
    characters = _characters_read(texts)
    _, features = _fit_vectorizers([text[:characters] for text in texts], _recipe(texts), n_labels)
    margins = np.empty((len(texts), n_labels), dtype=np.float32)
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        weights, bias = _fit_weights(features[~held_out], gold[~held_out], n_labels, seed)
        margins[held_out] = features[held_out] @ weights.T + bias
    return margins


def _characters_read(texts: Sequence[str]) -> int:
    """How much of the beginning of each text is read."""
    return max(50, min(LONGEST_TEXT, ALL_TEXTS // len(texts)))


def _recipe(texts: Sequence[str]) -> Recipe:
    return CHARACTERS if _is_mostly_unspaced(texts) else WORDS


def _is_mostly_unspaced(texts: Sequence[str]) -> bool:
    sample = "".join(text[:200] for text in texts[:: max(1, len(texts) // 1_000)])
    return len(_UNSPACED.findall(sample)) > MOSTLY * len(_LETTER.findall(sample))


def _vectorizer(analyzer: str, ngrams: tuple[int, int], **options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=ngrams,
        token_pattern=r"(?u)\b\w+\b" if analyzer == "word" else None,  # scikit-learn's own drops words of one character
        sublinear_tf=True,
        dtype=np.float32,
        **options,
    )


def _fit_vectorizers(texts: list[str], recipe: Recipe, n_labels: int) -> tuple[tuple[TfidfVectorizer, ...], Any]:
    """The vectorizers that found something to count, and the features of the texts, sparse (rows, features)."""
    most = min(MOST_FEATURES, max(MOST_FEATURES // 10, MOST_WEIGHTS // n_labels)) // len(recipe)
    fitted, features = [], []
    for analyzer, ngrams in recipe:
        one = _vectorizer(analyzer, ngrams, max_features=most)
        if not any(map(one.build_analyzer(), texts)):
            continue  # texts of nothing but emoji have no words
        features.append(one.fit_transform(texts))
        fitted.append(one)
    if not fitted:
        raise DataError(f"expected texts with something to read, but all {len(texts)} of them are blank")
    return tuple(fitted), sparse.hstack(features, format="csr")


def _fit_weights(features: Any, gold: np.ndarray, n_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One-against-the-rest weights (labels, features) and bias (labels,). A label without rows scores -1, what its machine would say.

    gold: label ids (rows,); multi-label: 0 or 1 (rows, labels).
    """
    weights = np.zeros((n_labels, features.shape[1]), dtype=np.float32)
    bias = np.full(n_labels, -1.0, dtype=np.float32)
    if gold.ndim == 2:
        for label in np.flatnonzero(gold.any(axis=0)):
            if gold[:, label].all():
                bias[label] = 1.0
                continue
            machine = LinearSVC(dual=True, tol=1e-3, random_state=seed).fit(features, gold[:, label])
            weights[label], bias[label] = machine.coef_[0], machine.intercept_[0]
        return weights, bias
    seen = np.unique(gold)
    if len(seen) == 1:
        bias[seen] = 1.0
        return weights, bias
    machine = LinearSVC(dual=True, tol=1e-3, random_state=seed).fit(features, gold)
    if len(seen) == 2:  # a single machine answers for both: its margin is for the second label and against the first
        weights[seen] = np.concatenate([-machine.coef_, machine.coef_])
        bias[seen] = np.concatenate([-machine.intercept_, machine.intercept_])
    else:
        weights[seen], bias[seen] = machine.coef_, machine.intercept_
    return weights, bias


def _restored(part: dict[str, Any], idf: np.ndarray) -> TfidfVectorizer:
    one = _vectorizer(part["analyzer"], tuple(part["ngrams"]), vocabulary=part["vocabulary"])
    one.idf_ = idf
    return one
