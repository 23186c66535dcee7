"""The draft head of a model: its weights, its phrases, and the model that it was fitted for."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.runtime.errors import ModelError, library_errors
from edge.runtime.platform.atomic import new_file

DRAFT_HEAD_NAME = "draft_head.safetensors"
KERNEL = 5  # source positions that a convolution reads
MAX_PHRASES, MAX_PHRASE = 255, 6  # phrases, and tokens of one
_MAX_HIDDEN = 1 << 12
_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class DraftHead:
    """Two convolutions over the encoder's output, and an edit for each source token.

    Attributes:
        first: float32 [hidden, d_model, KERNEL], of the first convolution.
        second: float32 [hidden, hidden, KERNEL], of the second, which is residual.
        output: float32 [2 + phrases, hidden, 1]: the logit of keeping the token, of inserting
            nothing before it, and of inserting each phrase.
        first_bias, second_bias, output_bias: float32, of the same.
        phrases: the token ids of each phrase.
        weights_sha256: hash of the weights of the model that it was fitted for.
        tokenizer_sha256: hash of that model's tokenizer.json.
        record: what it was fitted to, for the manifest.
    """

    first: np.ndarray
    first_bias: np.ndarray
    second: np.ndarray
    second_bias: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray
    phrases: tuple[tuple[int, ...], ...]
    weights_sha256: str
    tokenizer_sha256: str
    record: dict[str, Any]

    def conditioned(self, gain: np.ndarray, rotation: np.ndarray) -> DraftHead:
        """The same head, reading the encoder's output before its gain, and rotated.

        Args:
            gain: of the encoder's final norm, [d_model].
            rotation: orthogonal, [d_model, d_model]; the output is multiplied by it.
        """
        scaled = self.first.astype(np.float64) * gain[None, :, None]
        first = np.einsum("hdk,de->hek", scaled, rotation).astype(np.float32)
        return dataclasses.replace(self, first=first)

    def save(self, path: Path) -> None:
        """Write the head, completely or not at all."""
        from safetensors.numpy import save_file

        about = {
            "phrases": self.phrases,
            "weights_sha256": self.weights_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "record": self.record,
        }
        with new_file(path) as staging:
            save_file(self._arrays(), staging, {"draft_head": json.dumps(about)})

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("first", "first_bias", "second", "second_bias", "output", "output_bias")
        return {name: np.ascontiguousarray(getattr(self, name)) for name in names}

    def check(self, path: Path, *, d_model: int, vocab_size: int, weights: str, text: str) -> None:
        """Reject a head of another model, and a damaged one.

        Args:
            path: its file, for messages.
            d_model, vocab_size: of the model.
            weights, text: sha256 of the model's weights and tokenizer.

        Raises:
            ModelError: it does not belong to the model, or is damaged.
        """
        for what, have, want in (
            ("weights", self.weights_sha256, weights),
            ("tokenizer", self.tokenizer_sha256, text),
        ):
            if have != want:
                raise ModelError(
                    f"{path}: it was fitted for another model (the {what} differ). Run edge draft"
                    " fit again, or delete the file"
                )
        hidden, columns = len(self.first_bias), 2 + len(self.phrases)
        shapes = {
            "first": (hidden, d_model, KERNEL),
            "first_bias": (hidden,),
            "second": (hidden, hidden, KERNEL),
            "second_bias": (hidden,),
            "output": (columns, hidden, 1),
            "output_bias": (columns,),
        }
        arrays = self._arrays()
        sound = (
            0 < hidden <= _MAX_HIDDEN
            and len(self.phrases) <= MAX_PHRASES
            and all(0 < len(phrase) <= MAX_PHRASE for phrase in self.phrases)
            and all(0 <= token < vocab_size for phrase in self.phrases for token in phrase)
            and all(arrays[name].shape == shape for name, shape in shapes.items())
            and all(array.dtype == np.float32 for array in arrays.values())
            and all(np.isfinite(array).all() for array in arrays.values())
        )
        if not sound:
            raise _damaged(path)


def read_draft_head(path: Path) -> DraftHead:
    """Read a head; `DraftHead.check` says whether it belongs to a model.

    Raises:
        ModelError: not a draft head, or a damaged one.
    """
    from safetensors import safe_open

    with library_errors(ModelError, path, "damaged, or not a safetensors file"):
        if path.stat().st_size > _MAX_BYTES:
            raise _damaged(path)
        with safe_open(path, framework="numpy") as handle:
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            text = (handle.metadata() or {}).get("draft_head", "")
    try:
        about = json.loads(text)
        phrases = tuple(tuple(phrase) for phrase in about.pop("phrases"))
        if not all(type(token) is int for phrase in phrases for token in phrase):
            raise TypeError
        head = DraftHead(**arrays, phrases=phrases, **about)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _damaged(path) from None
    biases = (head.first_bias, head.second_bias, head.output_bias)
    if not isinstance(head.record, dict) or any(bias.ndim != 1 for bias in biases):
        raise _damaged(path)
    return head


def _damaged(path: Path) -> ModelError:
    return ModelError(f"{path}: not a draft head, or damaged. Run edge draft fit again")
