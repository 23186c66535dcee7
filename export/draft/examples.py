"""Rows for the fit of a draft head: inputs, edits into the answers, and encoder outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.export.draft.alignment import Edit, align
from edge.export.options import ExportOptions, resolve_limits
from edge.export.reference import TorchReference
from edge.export.source import SourceModel
from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.engines.base import pad_batch
from edge.runtime.errors import DataError, ModelError
from edge.runtime.inference.batching import batches_by_length
from edge.runtime.options import GenerationOptions
from edge.runtime.text.tokenization import Tokenizer

Progress = Callable[[str, int, int], None]  # (phase, done, total)

MIN_ROWS = 100
MAX_ROWS = 8000
BATCH = 32
_MAX_VALUES = 1 << 28  # of encoder outputs that are kept, in float16


@dataclass(frozen=True)
class DraftInputs:
    """The inputs that a head is fitted to.

    Attributes:
        texts: with the prompt applied.
        path: the data that they are from.
    """

    texts: list[str]
    path: Path


@dataclass(frozen=True)
class Example:
    """One input, its edits, and the encoder's output, float16 [source, d_model]."""

    source: list[int]
    edit: Edit
    encoded: np.ndarray


def make_examples(source: SourceModel, inputs: DraftInputs, notify: Progress) -> list[Example]:
    """The rows with the model's greedy answers, in the order of the data.

    Of many or long rows, evenly spread ones, as many as `MAX_ROWS` and the memory for encoder
    outputs allow. Inputs over the model's limit are left out.

    Raises:
        DataError: fewer than `MIN_ROWS` rows can be used.
        ModelError: the encoder's outputs are not finite in float16.
    """
    import torch

    limits = resolve_limits(source, ExportOptions())
    with source.tokenizer_folder() as folder:
        tokenizer = Tokenizer(folder / TOKENIZER_NAME, eos=source.architecture.eos_token_id)
    encoded = tokenizer.encode(inputs.texts)
    usable = [ids for ids in encoded if len(ids) <= limits.max_input_tokens]
    if len(usable) < MIN_ROWS:
        raise DataError(
            f"{len(usable)} usable rows of {len(encoded)} (at most {limits.max_input_tokens}"
            f" tokens); a draft head needs at least {MIN_ROWS}",
            path=inputs.path,
        )
    sources = _bounded(usable, source.architecture.d_model)
    reference = TorchReference(source, pieces=tokenizer.pieces)
    search = GenerationOptions(
        max_new_tokens=source.generation.options.get("max_new_tokens", limits.max_new_tokens)
    )
    examples: dict[int, Example] = {}
    notify("answers", 0, len(sources))
    for batch in batches_by_length([len(ids) for ids in sources], BATCH):
        rows = [sources[place] for place in batch]
        longest = min(search.max_new_tokens, 2 * max(map(len, rows)))
        answers = reference.answers(rows, dataclasses.replace(search, max_new_tokens=longest))
        ids, mask = pad_batch(rows, source.architecture.pad_token_id)
        encoder: Any = source.torch_model.get_encoder()
        with torch.inference_mode():
            output = encoder(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        with np.errstate(over="ignore"):
            hidden = output.last_hidden_state.numpy().astype(np.float16)
        for place, row, answer, values in zip(batch, rows, answers, hidden, strict=True):
            kept = values[: len(row)].copy()
            if not np.isfinite(kept).all():
                raise ModelError(
                    f"{source.folder}: the encoder's outputs are too large for a draft head, or NaN"
                )
            examples[place] = Example(row, align(row, [*answer, tokenizer.eos]), kept)
        notify("answers", len(examples), len(sources))
    source.release_memory()
    return [examples[place] for place in range(len(sources))]


def _bounded(inputs: list[list[int]], d_model: int) -> list[list[int]]:
    values = sum(map(len, inputs)) * d_model
    step = max(-(-len(inputs) // MAX_ROWS), -(-values // _MAX_VALUES), 1)
    return inputs[::step]
