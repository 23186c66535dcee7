"""Fitting of a draft head to a model's own answers, on a CPU; the model stays as it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edge.export.draft.alignment import Phrase, frequent_phrases
from edge.export.draft.examples import DraftInputs as DraftInputs
from edge.export.draft.examples import Example, Progress, make_examples
from edge.export.draft.network import fit_network, measure
from edge.export.draft_head import DRAFT_HEAD_NAME, MAX_PHRASES, DraftHead
from edge.export.options import ExportOptions, resolve_prompt, tokenizer_sha256
from edge.export.source import SourceModel
from edge.runtime.errors import ModelError, OutputExistsError
from edge.runtime.hub import find_repository, snapshot_of
from edge.runtime.platform.destination import check_writable
from edge.runtime.rows import Columns, data_sha256, read_rows, train_file
from edge.train.device import torch_threads

_HELD_OUT = 20  # every twentieth row measures the fit


@dataclass(frozen=True)
class FittedDraft:
    """A fitted head: its file, the head, and what `record` says of the held-out rows."""

    path: Path
    head: DraftHead


def fit_draft_head(
    model: str | Path | SourceModel,
    data: str | Path | DraftInputs,
    *,
    columns: Columns | None = None,
    prompt: str | None = None,
    limit: int | None = None,
    threads: int | None = None,
    force: bool = False,
    on_progress: Progress | None = None,
) -> FittedDraft:
    """Fit a head to the model's greedy answers, and save it in the model's folder.

    Args:
        model: a local model folder.
        data: a file of rows, or a folder, of which only the train rows are used; or texts.
        columns: names of the columns; targets are not needed.
        prompt: the prompt around each input; None takes that of training.
        limit: use only the first rows.
        threads: torch's threads; None leaves their number as it is.
        force: replace an existing head.
        on_progress: called with phase, done and total.

    Raises:
        ModelError: the model is not usable, or not a local folder.
        DataError: the data is missing or malformed, or has too few usable rows.
        UsageError: an invalid prompt, or one that needs a column that a row does not have.
        OutputExistsError: there is a head, and `force` is off.
        EdgeError: the folder can't be written.
    """
    path = _destination(model.folder if isinstance(model, SourceModel) else model, force=force)
    source = model if isinstance(model, SourceModel) else SourceModel.open(model)
    if not isinstance(data, DraftInputs):
        data = _read_inputs(source, Path(data), columns or Columns(), prompt, limit)
    notify = on_progress or (lambda *_: None)
    with torch_threads(threads):
        examples = make_examples(source, data, notify)
        phrases = frequent_phrases([example.edit for example in examples], MAX_PHRASES)
        head = _fit(source, data.path, examples, phrases, notify)
    head.save(path)
    return FittedDraft(path, head)


def _destination(model: str | Path, *, force: bool) -> Path:
    """The file of the head, in a local folder that may be written.

    Raises:
        ModelError: a model of the hub.
        OutputExistsError: there is a head, and `force` is off.
        EdgeError: the folder can't be written.
    """
    repository = find_repository(model)
    if repository is not None:
        revision = f" --revision {repository.revision}" if repository.revision else ""
        raise ModelError(
            f"{model}: no such folder. A draft head is saved beside the weights, so a model of the"
            f" hub needs a folder: hf download {repository.name}{revision} --local-dir FOLDER"
        )
    folder = Path(model)
    if (snapshot := snapshot_of(folder)) is not None:
        raise ModelError(
            f"{folder}: a folder of the hub's cache, which stays as it is. Download the model to"
            f" another one: hf download {snapshot[0]} --revision {snapshot[1]} --local-dir FOLDER"
        )
    path = folder / DRAFT_HEAD_NAME
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder. Move it elsewhere: a draft head is a file")
    if os.path.lexists(path) and not force:
        raise OutputExistsError(f"{path} already exists; use --force to replace it")
    if folder.is_dir():
        check_writable(path)
    return path


def _read_inputs(
    source: SourceModel, data: Path, columns: Columns, prompt: str | None, limit: int | None
) -> DraftInputs:
    file = train_file(data)
    rows = read_rows(file, columns, need_target=False)[:limit]
    around = resolve_prompt(source, ExportOptions(prompt=prompt))
    return DraftInputs([around.apply(row.input, row.fields) for row in rows], file)


def _fit(
    source: SourceModel,
    file: Path,
    examples: list[Example],
    phrases: list[Phrase],
    notify: Progress,
) -> DraftHead:
    """The head, with the record of what it was fitted to.

    Raises:
        ModelError: the fit diverged.
    """
    fitted = [example for place, example in enumerate(examples) if place % _HELD_OUT]
    network = fit_network(fitted, phrases, source.architecture.d_model, notify)
    record = {
        "data": file.name,
        "sha256": data_sha256(file),
        "rows": len(fitted),
        "phrases": len(phrases),
        **measure(network, examples[::_HELD_OUT], phrases),
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
    if not head.is_finite:
        raise ModelError(f"{source.folder}: the fit of the draft head diverged")
    return head
