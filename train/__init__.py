"""How a model learns: data, models, trainer, metrics and the training record.

Importing the package costs nothing; torch, transformers and datasets are loaded by the modules
that use them, when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.train.config import TrainConfig
    from edge.train.metrics import text_metrics
    from edge.train.model.from_scratch import quickstart_config
    from edge.train.synthetic import write_dataset
    from edge.train.trainer import TrainResult, train

__all__ = [
    "TrainConfig",
    "TrainResult",
    "quickstart_config",
    "text_metrics",
    "train",
    "write_dataset",
]

_HOMES = {
    "TrainConfig": "edge.train.config",
    "TrainResult": "edge.train.trainer",
    "quickstart_config": "edge.train.model.from_scratch",
    "text_metrics": "edge.train.metrics",
    "train": "edge.train.trainer",
    "write_dataset": "edge.train.synthetic",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
