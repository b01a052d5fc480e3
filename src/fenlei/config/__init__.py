"""What a training run can be told, and every default.

None means "chosen by fenlei"; the choice and its reason are printed and stored.
"""

from fenlei.config.data import DataConfig
from fenlei.config.model import HeadKind, Long, Method, ModelConfig, Objective, Source, Tuning
from fenlei.config.optimization import Device, Imbalance, OptimizationConfig, bytes_of
from fenlei.config.run import RunConfig, trained_on
from fenlei.config.search import Pruner, SearchConfig
from fenlei.config.trust import SetScore, TrustConfig

__all__ = [
    "DataConfig",
    "Device",
    "HeadKind",
    "Imbalance",
    "Long",
    "Method",
    "ModelConfig",
    "Objective",
    "OptimizationConfig",
    "Pruner",
    "RunConfig",
    "SearchConfig",
    "SetScore",
    "Source",
    "TrustConfig",
    "Tuning",
    "bytes_of",
    "trained_on",
]
