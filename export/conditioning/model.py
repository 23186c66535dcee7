"""Conditioning of a source: the passes in their order, and the check that nothing else changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.export.conditioning.activations import largest_inputs
from edge.export.conditioning.balance import balance_factors
from edge.export.conditioning.calibration import Calibration
from edge.export.conditioning.hadamard import Rotation
from edge.export.conditioning.moments import StoredMoments
from edge.export.conditioning.structure import (
    DECODER_NORM,
    ENCODER_NORM,
    Pair,
    attentions,
    feed_forward_pairs,
    norms,
    residual_writers,
    value_pairs,
)
from edge.export.source import SourceModel
from edge.export.torch_model import torch_model_of
from edge.export.weights import StoredWeights, require_finite
from edge.runtime.errors import EdgeError
from edge.runtime.platform.memory import give_back_free_memory
from edge.train.model.architecture import EMBEDDING, HEAD, expected_shapes

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Weights = dict[str, np.ndarray]

SEED = 0
_MAX_RELATIVE_ERROR = 1e-4
_CHECKED_ROWS = 8
_ROWS_AT_ONCE = 4096  # rows of a matrix that are in float64 at one time


@dataclass(frozen=True)
class Conditioned:
    """A conditioned model, and what was done.

    Attributes:
        source: The model with the new weights; it gives `input_moments` of the calibration rows.
        record: What was done, for the manifest.
    """

    source: SourceModel
    record: dict[str, Any]


def condition(source: SourceModel, calibration: Calibration, *, seed: int = SEED) -> Conditioned:
    """Rewrite a source's weights: balance, fold the norms' gains, rotate.

    The new weights compute the same function and lose less by quantization. Source, calibration
    rows and seed decide the result; nothing else does. A tied head becomes a matrix apart from the
    embedding, since the decoder's last gain is folded into the head alone. Formats that can
    multiply by `head_projection` first need no second matrix.

    Raises:
        ModelError: A weight is not finite; the message names it.
        EdgeError: The rewritten model computes something else than the source.
    """
    shape, config = source.architecture, source.torch_model.config
    pairs = [*value_pairs(shape), *feed_forward_pairs(shape)]
    seconds = [pair.second for pair in pairs]
    largest = largest_inputs(source.torch_model, shape, calibration, seconds)
    logits = _Logits.of(source, calibration)
    source.release_memory()  # as large as the weights that follow
    give_back_free_memory()
    weights = {name: _read_finite(source, name) for name in expected_shapes(shape)}
    if shape.tied_head:
        weights[HEAD] = weights[EMBEDDING].copy()
    rng = np.random.default_rng(seed)
    _balance(pairs, largest, weights)
    _fold_norms(source, weights)
    rotation = Rotation(shape.d_model, rng)
    _rotate_residual(source, weights, rotation)
    _rotate_heads(source, weights, rng)
    error = logits.check(torch_model_of(config, weights), source)
    stored = StoredWeights(weights)
    del weights
    give_back_free_memory()
    conditioned = source.with_weights(
        stored,
        input_moments=StoredMoments(shape, config, stored, calibration),
        head_projection=_head_projection(source, rotation) if shape.tied_head else None,
    )
    if source.draft_head is not None:
        gain = source.tensor(ENCODER_NORM).astype(np.float64)
        matrix = rotation.columns(np.eye(rotation.size))
        conditioned.draft_head = source.draft_head.conditioned(gain, matrix)
    record = {
        "balanced_pairs": len(pairs),
        "folded_norms": sum(1 for _ in norms(shape)),
        "residual_hadamard": [rotation.hadamard_size, shape.d_model],
        "head_hadamard": [shape.d_kv & -shape.d_kv, shape.d_kv],
        "seed": seed,
        "max_relative_logit_error": float(f"{error:.1e}"),
        "calibration": calibration.as_manifest(),
    }
    return Conditioned(conditioned, record)


def _read_finite(source: SourceModel, name: str) -> np.ndarray:
    """A new float32 array, which the passes may change."""
    return require_finite(np.array(source.tensor(name), dtype=np.float32), name, source.folder)


def _balance(pairs: Iterable[Pair], largest: Mapping[str, np.ndarray], weights: Weights) -> None:
    """Balance values with output projections and the two halves of feed-forward layers.

    Args:
        pairs: What is balanced.
        largest: The largest inputs of each `second`.
        weights: Changed in place.
    """
    for pair in pairs:
        # Powers of two: exact in float32.
        factors = balance_factors(largest[pair.second], weights[pair.second]).astype(np.float32)
        weights[pair.first] *= factors[:, None]
        weights[pair.second] /= factors[None, :]


def _fold_norms(source: SourceModel, weights: Weights) -> None:
    for norm in norms(source.architecture):
        gain = weights[norm.weight].astype(np.float64)
        for reader in norm.readers:
            weights[reader] = (weights[reader] * gain[None, :]).astype(np.float32)
        weights[norm.weight] = np.ones_like(weights[norm.weight])


def _rotate_residual(source: SourceModel, weights: Weights, rotation: Rotation) -> None:
    """Rotate what reads the residual stream and what writes to it (QuaRot's R1)."""
    readers = [EMBEDDING, *(name for norm in norms(source.architecture) for name in norm.readers)]
    for name in readers:
        weights[name] = _rotate_columns(weights[name], rotation)
    for name in residual_writers(source.architecture):
        weights[name] = np.ascontiguousarray(_rotate_columns(weights[name].T, rotation).T)


def _head_projection(source: SourceModel, rotation: Rotation) -> np.ndarray:
    """Qᵀ · diag(gain) · Q: the rotated embedding times this is the head of a tied model."""
    gain = np.diag(source.tensor(DECODER_NORM).astype(np.float64))
    return rotation.rows(rotation.columns(gain)).astype(np.float32)


def _rotate_heads(source: SourceModel, weights: Weights, rng: np.random.Generator) -> None:
    """Rotate the values within each attention head (QuaRot's R2)."""
    width = source.architecture.d_kv
    for attention in attentions(source.architecture):
        values, output = weights[f"{attention}.v.weight"], weights[f"{attention}.o.weight"]
        for head in range(source.architecture.num_heads):
            rotation = Rotation(width, rng)
            part = slice(head * width, (head + 1) * width)
            values[part] = rotation.rows(values[part].astype(np.float64))
            output[:, part] = rotation.columns(output[:, part].astype(np.float64))


def _rotate_columns(matrix: np.ndarray, rotation: Rotation) -> np.ndarray:
    """matrix @ Q, computed in float64, some rows at a time."""
    rotated = np.empty(matrix.shape, dtype=np.float32)
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        rotated[part] = rotation.columns(matrix[part].astype(np.float64))
    return rotated


@dataclass(frozen=True)
class _Logits:
    """A model's logits on a few rows, each float32 [1, tokens, vocab]."""

    rows: list[dict[str, torch.Tensor]]
    logits: list[torch.Tensor]

    @classmethod
    def of(cls, source: SourceModel, calibration: Calibration) -> _Logits:
        import torch

        start = source.architecture.decoder_start_token_id
        step = max(1, len(calibration) // _CHECKED_ROWS)
        rows = [
            {
                "input_ids": torch.tensor([ids]),
                "decoder_input_ids": torch.tensor([[start, *target[:-1]]]),
            }
            for ids, target in zip(
                calibration.inputs[::step], calibration.targets[::step], strict=True
            )
        ]
        with torch.inference_mode():
            return cls(rows, [source.torch_model(**row).logits for row in rows])

    def check(self, conditioned: PreTrainedModel, source: SourceModel) -> float:
        """The largest change of a logit, relative to the largest logit of its row.

        Raises:
            EdgeError: It is more than rounding explains.
        """
        import torch

        worst = 0.0
        with torch.inference_mode():
            for row, before in zip(self.rows, self.logits, strict=True):
                after = conditioned(**row).logits
                worst = max(worst, float((before - after).abs().max() / before.abs().max()))
        if not worst <= _MAX_RELATIVE_ERROR:
            raise EdgeError(
                f"{source.folder}: conditioning changed a logit by {worst:.1e} of the largest"
                f" one (limit {_MAX_RELATIVE_ERROR:g}). Export with --no-condition"
            )
        return worst
