"""The run that answers: loaded, warmed, exchanged for a newer one while it serves, and loaded again where it broke."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from fenlei.artifact import DIGEST, MANIFEST, fingerprint
from fenlei.config import trained_on
from fenlei.data.jsonvalues import to_json
from fenlei.errors import FenleiError, ModelError
from fenlei.inference.classifier import Classifier
from fenlei.inference.prediction import Prediction
from fenlei.text.pairs import Text
from fenlei.text.windows import WINDOWED

logger = logging.getLogger(__name__)

CPU_BATCH_TOKENS = 2048
"""A second of a half-billion-parameter model on few cores: more would gain little and make the next request wait."""
BATCH_TOKENS = 8192
"""On an accelerator."""
OWN_TEXT = "央行下调利率 The central bank cut rates"
WARMING_ROWS = 16
VERSION_DIGITS = 12


class ModelLostError(Exception):
    """The model broke, and could not be loaded again."""


@dataclass(frozen=True)
class Answered:
    """One text's answer, and who gave it."""

    prediction: Prediction
    run: str
    version: str
    answers_sha: str
    """Those of Served."""


@dataclass(frozen=True)
class Served:
    """A run in service."""

    classifier: Classifier
    run: str
    """Its name: that of its folder, unless it is served under another."""
    version: str
    """The beginning of the checksum in its fenlei.json: another training, another version."""
    loaded: float
    """Seconds since 1970."""
    text_column: str | None = None
    """The column that it was trained on, as it was named; None where it was found by its name."""

    @cached_property  # asked for with every request; a run that is served stays what it is
    def max_length(self) -> int | None:
        """Tokens that are read of a text; None: all of them, in windows."""
        manifest = self.classifier.describe()
        in_windows = manifest.get("long") in WINDOWED and not self.classifier.pairs
        return None if in_windows else int(manifest["max_length"])

    @cached_property
    def answers_sha(self) -> str:
        """The beginning of the SHA-256 of what its answers are given with, which is up to the service: its promises, and 8-bit integers.

        Two of one `version` and this answer alike.
        """
        told = {**self.classifier.trust.to_json(), "int8": bool(self.classifier.describe().get("int8"))}
        return sha256(to_json(told).encode()).hexdigest()[:VERSION_DIGITS]

    @property
    def batch_tokens(self) -> int:
        """Tokens a pass where nothing else is asked for."""
        return CPU_BATCH_TOKENS if self.classifier.device.type == "cpu" else BATCH_TOKENS

    def own_text(self, length: int = 1) -> Text:
        """A text, or a pair, that it can always be asked, `length` times as long as the shortest."""
        text = OWN_TEXT * length
        return (text, OWN_TEXT) if self.classifier.pairs else text

    @cached_property
    def own_labels(self) -> tuple[str, ...] | None:
        """Labels that it can always be asked among: where rows offered candidates, all of the run may leave no room for a text."""
        return self.classifier.labels[:2] if self.classifier.describe().get("row_candidates") else None

    def answer(self, texts: Sequence[Text], labels: Sequence[str] | None) -> list[Answered | Exception]:
        """What Classifier.predict says of each text among `labels` (None: the run's); an exception where that is no number."""
        predictions = self.classifier.predict(texts, labels=labels)
        told = self.run, self.version, self.answers_sha
        return [Answered(one, *told) if math.isfinite(one.confidence) else _not_a_number() for one in predictions]


class ServedRun:
    """The run in `folder`, as it is served now. `load` gives a classifier for a folder; `name` None: the run is called as its folder."""

    def __init__(self, folder: Path, load: Callable[[Path], Classifier], name: str | None = None) -> None:
        self.folder = folder
        self._load = load
        self._name = name
        self._served: Served | None = None
        self._loading = threading.Lock()

    @property
    def loaded(self) -> bool:
        return self._served is not None

    @property
    def current(self) -> Served:
        assert self._served is not None, "the run is loaded before anybody asks"
        return self._served

    def load(self) -> Served:
        """Loads what is in the folder now, warms it and puts it in service; the one before answers until then, and on if this fails.

        FenleiError where the run cannot be loaded, or does not answer.
        """
        with self._loading:
            began = time.monotonic()
            folder = self.folder.resolve()
            try:
                served = self._warmed(folder)
            except (OSError, RuntimeError, ArithmeticError) as error:  # memory, a damaged file, a device in trouble
                raise ModelError(f"{folder}: cannot be taken into service ({type(error).__name__}: {error})") from error
            self._served = served
            logger.info("%s, version %s, is loaded and warm after %.1f s", served.run, served.version, time.monotonic() - began)
            return served

    def _warmed(self, folder: Path) -> Served:
        classifier = self._load(folder)
        # Runs of older versions have no checksum.
        version = (classifier.describe().get(DIGEST) or fingerprint(folder / MANIFEST))[:VERSION_DIGITS]
        served = Served(classifier, self._name or folder.name, version, time.time(), trained_on(folder).text_column)
        _prove(served)
        served.answer([served.own_text(1 + row) for row in range(WARMING_ROWS)], served.own_labels)
        return served

    def check(self) -> None:
        """Answers a text of its own; an exception where it cannot."""
        _prove(self.current)

    def recover(self) -> None:
        """Loads the run again; ModelLostError where that does not help."""
        try:
            self.load()
        except FenleiError as error:
            raise ModelLostError from error


def _prove(served: Served) -> None:
    (answer,) = served.answer([served.own_text()], served.own_labels)
    if isinstance(answer, Exception):
        raise answer


def _not_a_number() -> ArithmeticError:
    return ArithmeticError("the model's probability is not a number")
