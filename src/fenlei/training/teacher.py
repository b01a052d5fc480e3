"""What a finished run says of many texts, kept a window at a time: a distillation that was cut off asks for none of them twice."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fenlei.artifact import CHECKPOINTS, DIGEST, TEACHER, saving, whole_file
from fenlei.config import Device, RunConfig
from fenlei.inference.bulk import WINDOW_ROWS
from fenlei.inference.candidates import was_fitted_among
from fenlei.inference.classifier import Classifier
from fenlei.inference.trust import Trust
from fenlei.models.devices import pick_device
from fenlei.models.quantized import computes_int8
from fenlei.text.pairs import Text

WARM_ROWS, LEAST_SECONDS, MOST_TEXTS = 32, 1.0, 1000


def load_teacher(run: Path, device: Device) -> Classifier:
    """The finished run, which is asked about many texts: in 8-bit integers where it was trained with `int8`, answers with a head, and they
    can be computed.
    """
    trained = RunConfig.from_yaml(run / "config.yaml")
    int8 = trained.optimization.int8 and trained.model.method == "head" and computes_int8(pick_device(device)[0])
    return Classifier.load(run, device=device, int8=int8)


def soft_labels(teacher: Classifier, texts: Sequence[Text], out: Path) -> np.ndarray:
    """Calibrated logits of every text, float32 (rows, labels); kept among the checkpoints of `out` until its training ends."""
    folder = out / CHECKPOINTS / TEACHER
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
    windows = []
    for first in range(0, len(texts), WINDOW_ROWS):
        window = texts[first : first + WINDOW_ROWS]
        path = folder / f"{_key(teacher, window)}.npy"
        if not path.exists():
            logits = calibrated_logits(teacher, window)
            with whole_file(path) as temporary, saving(path), temporary.open("wb") as file:
                np.save(file, logits)
        windows.append(np.load(path))
    return np.concatenate(windows) if windows else np.zeros((0, len(teacher.labels)), dtype=np.float32)


def answers_with(classifier: Classifier) -> Trust:
    """What bare texts are answered with: nothing was fitted for them where every row that calibrated offered labels of its own."""
    own = classifier.labels
    return classifier.trust if was_fitted_among(classifier.describe(), own, own) else classifier.trust.unfitted()


def calibrated_logits(classifier: Classifier, texts: Sequence[Text]) -> np.ndarray:
    """float32 (rows, labels): their softmax is what the run answers with."""
    return answers_with(classifier).calibration.apply(classifier.logits(texts).logits).astype(np.float32)


def clocked_answers(classifier: Classifier, texts: Sequence[Text]) -> tuple[np.ndarray, float]:
    """Probabilities (rows, labels) of all texts, and how many a second it answers: clocked over these where they take long enough."""
    classifier.predict_proba(texts[:WARM_ROWS])
    began = time.perf_counter()
    answers = np.concatenate([classifier.predict_proba(texts[at : at + WINDOW_ROWS]) for at in range(0, len(texts), WINDOW_ROWS)])
    seconds = time.perf_counter() - began
    pace = len(texts) / seconds if seconds >= LEAST_SECONDS else rows_per_second(classifier, texts)
    return answers, pace


def rows_per_second(classifier: Classifier, texts: Sequence[Text]) -> float:
    """Of answering these texts again and again for a second or more, warmed up before."""
    asked = list(texts[:MOST_TEXTS])
    classifier.predict_proba(asked[:WARM_ROWS])
    began, done = time.perf_counter(), 0
    while True:
        classifier.predict_proba(asked)
        done += len(asked)
        seconds = time.perf_counter() - began
        if seconds >= LEAST_SECONDS:
            return done / seconds


def _key(teacher: Classifier, texts: Sequence[Text]) -> str:
    told = teacher.describe()
    digest = hashlib.sha256(f"{told.get(DIGEST) or told.get('files')} {teacher.dtype} {told.get('int8')}".encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode() if isinstance(text, str) else "\0".join(text).encode()).digest())
    return digest.hexdigest()[:32]
