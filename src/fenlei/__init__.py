"""The public names of fenlei. Importing it imports neither torch nor transformers: names that need them come on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fenlei.errors import ArtifactError, ConfigError, DataError, FenleiError, ModelError, RequestError

if TYPE_CHECKING:
    from fenlei.config import RunConfig
    from fenlei.data.examples import Example
    from fenlei.inference.classifier import Classifier
    from fenlei.inference.prediction import Prediction
    from fenlei.labels import LabelNote, LabelSet
    from fenlei.serving.client import Client
    from fenlei.training.estimator import FenleiClassifier
    from fenlei.training.fit import TrainResult, train
    from fenlei.training.tune import TuneResult, tune

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "Classifier",
    "Client",
    "ConfigError",
    "DataError",
    "Example",
    "FenleiClassifier",
    "FenleiError",
    "LabelNote",
    "LabelSet",
    "ModelError",
    "Prediction",
    "RequestError",
    "RunConfig",
    "TrainResult",
    "TuneResult",
    "__version__",
    "train",
    "tune",
]

_HOMES = {
    "Classifier": "fenlei.inference.classifier",
    "Client": "fenlei.serving.client",
    "Example": "fenlei.data.examples",
    "FenleiClassifier": "fenlei.training.estimator",
    "LabelNote": "fenlei.labels",
    "LabelSet": "fenlei.labels",
    "Prediction": "fenlei.inference.prediction",
    "RunConfig": "fenlei.config",
    "TrainResult": "fenlei.training.fit",
    "TuneResult": "fenlei.training.tune",
    "train": "fenlei.training.fit",
    "tune": "fenlei.training.tune",
}
"""The module of each name that is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fenlei' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
