"""Training: data, models, the training run, metrics and the training record.

`train` runs a `TrainConfig` and writes a Hugging Face model folder:

    >>> from edge.train import TrainConfig, train
    >>> result = train(TrainConfig(data="rows.jsonl", output="my-model", from_scratch="tiny",
    ...                            dev_ratio=0.1))

Importing the package is fast: torch, transformers and datasets are imported when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.train.config import TrainConfig
    from edge.train.events import Event
    from edge.train.metrics import text_metrics
    from edge.train.model.from_scratch import quickstart_config
    from edge.train.presets import build_config
    from edge.train.synthetic import write_dataset
    from edge.train.trainer import TrainResult, train

__all__ = [
    "Event",
    "TrainConfig",
    "TrainResult",
    "build_config",
    "quickstart_config",
    "text_metrics",
    "train",
    "write_dataset",
]

_MODULES = {
    "Event": "edge.train.events",
    "TrainConfig": "edge.train.config",
    "TrainResult": "edge.train.trainer",
    "build_config": "edge.train.presets",
    "quickstart_config": "edge.train.model.from_scratch",
    "text_metrics": "edge.train.metrics",
    "train": "edge.train.trainer",
    "write_dataset": "edge.train.synthetic",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
