"""Fitting of a draft head to a model's own answers, on a CPU; the model stays as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.export.conditioning.calibration import train_file
from edge.export.draft.alignment import Edit, align, frequent_phrases
from edge.export.draft_head import DRAFT_HEAD_NAME, KERNEL, MAX_PHRASES, DraftHead
from edge.export.options import ExportOptions, resolve_limits, resolve_prompt, tokenizer_sha256
from edge.export.reference import TorchReference
from edge.export.source import SourceModel
from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.engines.base import pad_batch
from edge.runtime.errors import DataError
from edge.runtime.options import GenerationOptions
from edge.runtime.platform.destination import check_destination
from edge.runtime.rows import Columns, data_sha256, read_rows
from edge.runtime.text.tokenization import Tokenizer

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int], None]  # (phase, done, total)

MIN_ROWS = 100
MAX_ROWS = 8000
_MAX_VALUES = 1 << 28  # of encoder outputs that are kept, in float16
_HIDDEN, _DROPOUT = 128, 0.1
_BATCH, _EPOCHS, _LEARNING_RATE, _SEED = 32, 4, 2e-3, 0
_HELD_OUT = 20  # every twentieth row measures the fit


@dataclass(frozen=True)
class FittedDraft:
    """A fitted head: its file, the head, and what `record` says of the held-out rows."""

    path: Path
    head: DraftHead


@dataclass(frozen=True)
class _Example:
    source: list[int]
    edit: Edit
    encoded: np.ndarray  # float16 [source, d_model]


def fit_draft_head(
    model: str | Path | SourceModel,
    data: Path,
    *,
    columns: Columns | None = None,
    limit: int | None = None,
    force: bool = False,
    on_progress: Progress | None = None,
) -> FittedDraft:
    """Fit a head to the model's greedy answers, and save it in the model's folder.

    Args:
        model: a local model folder.
        data: a file of rows, or a folder, of which only the train rows are used.
        columns: names of the columns; targets are not needed.
        limit: use only the first rows.
        force: replace an existing head.
        on_progress: called with phase, done and total.

    Raises:
        ModelError: the model is not usable.
        DataError: the data is missing or malformed, or has too few usable rows.
        OutputExistsError: there is a head, and `force` is off.
    """
    source = model if isinstance(model, SourceModel) else SourceModel.open(model)
    path = source.folder / DRAFT_HEAD_NAME
    check_destination(path, force=force, file=True)
    notify = on_progress or (lambda *_: None)
    file = train_file(data)
    examples = _examples(source, file, columns or Columns(), limit, notify)
    phrases = frequent_phrases([example.edit for example in examples], MAX_PHRASES)
    fitted = [e for place, e in enumerate(examples) if place % _HELD_OUT]
    network = _fit(fitted, phrases, source.architecture.d_model, notify)
    record = {
        "data": file.name,
        "sha256": data_sha256(file),
        "rows": len(fitted),
        "phrases": len(phrases),
        **_measure(network, examples[::_HELD_OUT], phrases),
    }
    (first, first_bias), (second, second_bias), (output, output_bias) = (
        [part.detach().numpy() for part in (layer.weight, layer.bias)]
        for layer in (network.first, network.second, network.output)
    )
    head = DraftHead(
        first,
        first_bias,
        second,
        second_bias,
        output,
        output_bias,
        phrases=tuple(phrases),
        weights_sha256=source.weights_sha256,
        tokenizer_sha256=tokenizer_sha256(source),
        record=record,
    )
    head.save(path)
    return FittedDraft(path, head)


def _examples(
    source: SourceModel, file: Path, columns: Columns, limit: int | None, notify: Progress
) -> list[_Example]:
    """The rows with the model's greedy answers, in the order of the file."""
    import torch

    rows = read_rows(file, columns)[:limit]
    options = ExportOptions()
    prompt, limits = resolve_prompt(source, options), resolve_limits(source, options)
    with source.tokenizer_folder() as folder:
        eos = source.architecture.eos_token_id
        tokenizer = Tokenizer(folder / TOKENIZER_NAME, eos=eos)
    texts = [prompt.apply(row.input, row.fields) for row in rows]
    inputs = [ids for ids in tokenizer.encode(texts) if len(ids) <= limits.max_input_tokens]
    inputs = _bounded(inputs, source.architecture.d_model)
    if len(inputs) < MIN_ROWS:
        raise DataError(
            f"{len(inputs)} usable rows; a draft head needs at least {MIN_ROWS}", path=file
        )
    reference = TorchReference(source, pieces=tokenizer.pieces)
    search = GenerationOptions(
        max_new_tokens=source.generation.options.get("max_new_tokens", limits.max_new_tokens)
    )
    examples: dict[int, _Example] = {}
    for batch in _batches([len(ids) for ids in inputs]):
        sources = [inputs[place] for place in batch]
        longest = min(search.max_new_tokens, 2 * max(map(len, sources)))
        answers = reference.answers(sources, dataclasses.replace(search, max_new_tokens=longest))
        ids, mask = pad_batch(sources, source.architecture.pad_token_id)
        encoder: Any = source.torch_model.get_encoder()
        with torch.inference_mode():
            encoded = encoder(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            )
        hidden = encoded.last_hidden_state.numpy()
        for place, ids_of_row, answer, values in zip(batch, sources, answers, hidden, strict=True):
            edit = align(ids_of_row, [*answer, tokenizer.eos])
            kept = values[: len(ids_of_row)].astype(np.float16)
            examples[place] = _Example(ids_of_row, edit, kept)
        notify("answers", len(examples), len(inputs))
    source.release_memory()
    return [examples[place] for place in range(len(inputs))]


def _bounded(inputs: list[list[int]], d_model: int) -> list[list[int]]:
    """Evenly spread rows, as many as `MAX_ROWS` and the memory for encoder outputs allow."""
    values = sum(map(len, inputs)) * d_model
    step = max(-(-len(inputs) // MAX_ROWS), -(-values // _MAX_VALUES), 1)
    return inputs[::step]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows of similar length."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    for start in range(0, len(order), _BATCH):
        yield order[start : start + _BATCH]


def _network(d_model: int, columns: int) -> Any:
    import torch
    from torch import nn

    class Network(nn.Module):
        """Encoder outputs [rows, d_model, length] → logits [rows, columns, length]."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv1d(d_model, _HIDDEN, KERNEL, padding=KERNEL // 2)
            self.second = nn.Conv1d(_HIDDEN, _HIDDEN, KERNEL, padding=KERNEL // 2)
            self.output = nn.Conv1d(_HIDDEN, columns, 1)
            self.dropout = nn.Dropout(_DROPOUT)

        def forward(self, encoded: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(self.first(encoded))
            hidden = hidden + torch.relu(self.second(self.dropout(hidden)))
            logits: torch.Tensor = self.output(self.dropout(hidden))
            return logits

    return Network()


def _fit(
    examples: Sequence[_Example],
    phrases: Sequence[tuple[int, ...]],
    d_model: int,
    notify: Progress,
) -> Any:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    rng = np.random.default_rng(_SEED)
    batches = list(_batches([len(example.source) for example in examples]))
    steps = _EPOCHS * len(batches)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = _network(d_model, 2 + len(phrases)).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
        for step in range(steps):
            if step % len(batches) == 0:
                order = rng.permutation(len(batches))
            batch = [examples[place] for place in batches[order[step % len(batches)]]]
            encoded, kept, inserted = _tensors(batch, phrases)
            logits = network(encoded)
            real = kept >= 0
            loss = binary_cross_entropy_with_logits(logits[:, 0][real], kept[real])
            loss = loss + cross_entropy(logits[:, 1:], inserted, ignore_index=-100)
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * (1 - step / steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            notify("fit", step + 1, steps)
    return network.eval()


def _tensors(
    batch: Sequence[_Example], phrases: Sequence[tuple[int, ...]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Encoder outputs, whether tokens are kept (-1: padding), and classes of insertions (-100)."""
    import torch

    classes = {phrase: place for place, phrase in enumerate([(), *phrases])}
    longest, width = max(len(example.source) for example in batch), batch[0].encoded.shape[1]
    encoded = torch.zeros(len(batch), width, longest)
    kept = torch.full((len(batch), longest), -1.0)
    inserted = torch.full((len(batch), longest), -100)
    for row, example in enumerate(batch):
        length = len(example.source)
        encoded[row, :, :length] = torch.from_numpy(example.encoded.astype(np.float32)).T
        kept[row, :length] = torch.tensor(example.edit.kept, dtype=torch.float32)
        # A rare insertion is none: the decoder makes it.
        inserted[row, :length] = torch.tensor([classes.get(p, 0) for p in example.edit.inserted])
    return encoded, kept, inserted


def _measure(
    network: Any, examples: Sequence[_Example], phrases: Sequence[tuple[int, ...]]
) -> dict[str, Any]:
    """On held-out rows: the ratio of right decisions to keep, and of answers right as a whole."""
    import torch

    right = tokens = whole = 0
    for example in examples:
        encoded, kept, inserted = _tensors([example], phrases)
        with torch.inference_mode():
            logits = network(encoded)
        agrees = (logits[0, 0] > 0) == (kept[0] > 0.5)
        known = all(p == () or p in phrases for p in example.edit.inserted)
        same = bool((logits[0, 1:].argmax(dim=0) == inserted[0]).all())
        right, tokens = right + int(agrees.sum()), tokens + len(example.source)
        whole += bool(agrees.all()) and same and known
    return {
        "held_out": len(examples),
        "keep_accuracy": round(right / tokens, 4),
        "whole_answers": round(whole / len(examples), 4),
    }
