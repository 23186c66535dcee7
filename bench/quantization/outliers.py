"""Outliers injected into a T5: the same function in float32, and hard to quantize.

Real FLAN-T5 weights have them: channels of the normed residual stream of 15 to 26 times the root
mean square, and inputs of `wo` beyond 66,000.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from edge.export.conditioning.structure import (
    DECODER_NORM,
    feed_forward_pairs,
    norms,
    value_pairs,
)
from edge.export.source import SourceModel

# Level → factors of the large channels: of norms and values, and of feed-forward layers.
LEVELS = {"mild": (8.0, 30.0), "real": (30.0, 100.0), "harsh": (60.0, 300.0)}
_OUTLIER_RATIO = 0.016  # of the channels


def inject_outliers(
    model: Path, folder: Path, *, norm: float, feed_forward: float, seed: int = 0
) -> Path:
    """Copy a model; a few channels of every norm, value and feed-forward layer become large.

    Powers of two leave the function exactly as it is.
    """
    shutil.copytree(model, folder)
    shape = SourceModel.open(model).architecture
    weights = load_file(model / "model.safetensors")
    rng = np.random.default_rng(seed)

    def factors(size: int, top: float) -> np.ndarray:
        values = np.ones(size, dtype=np.float32)
        chosen = rng.choice(size, max(1, round(size * _OUTLIER_RATIO)), replace=False)
        values[chosen] = np.exp2(np.rint(np.log2(top * rng.uniform(0.5, 1.5, chosen.size))))
        return values

    for one in norms(shape):
        if one.weight == DECODER_NORM:
            continue  # a tied head reads it, and could not be scaled
        scale = factors(weights[one.weight].size, norm)
        weights[one.weight] = weights[one.weight] * scale
        for reader in one.readers:
            weights[reader] = weights[reader] / scale[None, :]
    tops = [(pair, norm) for pair in value_pairs(shape)]
    tops += [(pair, feed_forward) for pair in feed_forward_pairs(shape)]
    for pair, top in tops:
        scale = factors(weights[pair.second].shape[1], top)
        weights[pair.first] = weights[pair.first] * scale[:, None]
        weights[pair.second] = weights[pair.second] / scale[None, :]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
