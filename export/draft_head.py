"""The draft head of a model: its weights, its phrases, and the model that it was fitted for."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.runtime.errors import ModelError, library_errors
from edge.runtime.platform.atomic import new_file
from edge.runtime.platform.json_file import is_unicode, parse_json
from edge.train.model.weights import DRAFT_HEAD_NAME as DRAFT_HEAD_NAME

KERNEL = 5  # source positions that a convolution reads
MAX_PHRASES, MAX_PHRASE = 255, 6  # phrases, and tokens of one
_MAX_HIDDEN = 1 << 10
_MAX_BYTES = 64 << 20  # several times the head of the widest T5
_MAX_HEADER_BYTES = 1 << 20
_MAX_FACTS, _MAX_TEXT, _MAX_NUMBER = 32, 1000, 1 << 53  # of the record
_ARRAYS = ("first", "first_bias", "second", "second_bias", "output", "output_bias")


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
        record: what it was fitted to, for the manifest: texts and numbers by name.
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

    @property
    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return all(bool(np.isfinite(array).all()) for array in self._arrays().values())

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}

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
                    " fit again with --force, or delete the file"
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
            and self.is_finite
        )
        if not sound:
            raise _damaged(path)


def read_draft_head(path: Path) -> DraftHead:
    """Read a head; `DraftHead.check` says whether it belongs to a model.

    Sizes and types are checked before memory is taken for the weights.

    Raises:
        ModelError: not a draft head, or a damaged one.
    """
    from safetensors import safe_open

    if not path.is_file():  # a folder, a pipe or a broken link
        raise _damaged(path)
    with library_errors(ModelError, path, "damaged, or not a safetensors file"):
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
        if size > _MAX_BYTES or header_bytes > _MAX_HEADER_BYTES:
            raise _damaged(path)
        with safe_open(path, framework="numpy") as handle:
            names = list(handle.keys())
            types = {handle.get_slice(name).get_dtype() for name in names}
            if sorted(names) != sorted(_ARRAYS) or types != {"F32"}:
                raise _damaged(path)
            arrays = {name: handle.get_tensor(name) for name in names}
            text = (handle.metadata() or {}).get("draft_head", "")
    try:
        about = parse_json(text)
        phrases = tuple(tuple(phrase) for phrase in about.pop("phrases"))
        if not all(type(token) is int for phrase in phrases for token in phrase):
            raise TypeError
        head = DraftHead(**arrays, phrases=phrases, **about)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _damaged(path) from None
    biases = (head.first_bias, head.second_bias, head.output_bias)
    if not _is_record(head.record) or any(bias.ndim != 1 for bias in biases):
        raise _damaged(path)
    return head


def _is_record(values: object) -> bool:
    """Whether a manifest can hold these values: a few texts and numbers."""

    def fits(value: object) -> bool:
        if isinstance(value, str):
            return len(value) <= _MAX_TEXT
        return isinstance(value, int | float) and -_MAX_NUMBER < value < _MAX_NUMBER

    return (
        isinstance(values, dict)
        and len(values) <= _MAX_FACTS
        and is_unicode(values)
        and all(len(name) <= _MAX_TEXT and fits(value) for name, value in values.items())
    )


def draft_head_line(record: Mapping[str, Any]) -> str:
    """A one-line summary of a head's record; what it lacks is left out."""
    parts = []
    if "rows" in record or "data" in record:
        parts.append(f"fitted to {_shown(record, 'rows')} rows of {_shown(record, 'data')}")
    if "keep_accuracy" in record:
        parts.append(
            f"on {_shown(record, 'held_out')} held-out rows"
            f" {_shown(record, 'keep_accuracy', '.1%')} of the tokens kept or deleted as the model"
            f" does, {_shown(record, 'whole_answers', '.1%')} of the answers drafted as a whole"
        )
    return "; ".join(parts) or "included"


def _shown(record: Mapping[str, Any], name: str, form: str = ",") -> str:
    value = record.get(name, "?")
    # A manifest may come from an untrusted place.
    is_number = isinstance(value, int | float) and -_MAX_NUMBER < value < _MAX_NUMBER
    return format(value, form) if is_number else str(value)[:_MAX_TEXT]


def _damaged(path: Path) -> ModelError:
    return ModelError(
        f"{path}: not a draft head, or damaged. Run edge draft fit again with --force, or delete"
        " the file"
    )
