"""How often an artifact answers as its source model does: the reference's answers, and the share.

The reference is the run's float32 artifact of the same weights, unless another is named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from edge.bench.artifacts.accuracy import Accuracy, greedy_answers
from edge.bench.artifacts.scores import MIN_ROWS, share_interval
from edge.runtime.artifact import Artifact
from edge.runtime.artifact.manifest import MANIFEST_NAME, Manifest, Source, TokenizerInfo
from edge.runtime.model import Model, load
from edge.runtime.rows import Row

# Of artifacts that were all measured, or of some that were not.
Measured = TypeVar("Measured", Accuracy, Accuracy | None)

_FLOAT32 = ("float32", "f32")


def reference_answers(reference: str | Path, rows: Sequence[Row]) -> list[str]:
    """The greedy answers of an artifact, or of a model folder as transformers runs it in float32.

    Raises:
        ArtifactError, ModelError: neither an artifact nor a T5-family model.
        MissingExtraError: its engine's library is not installed.
    """
    opened = load if (Path(reference) / MANIFEST_NAME).is_file() else open_source
    with opened(reference) as model:
        return greedy_answers(model, rows)


@contextlib.contextmanager
def open_source(model: str | Path) -> Iterator[Model]:
    """A model folder as a `Model`, by transformers, with the prompt and limits that an export of
    it would have.

    Raises:
        ModelError: not a T5-family model, or not with the tokenizer that it was trained with.
    """
    from edge.export.manifest import file_info
    from edge.export.publish import Publisher
    from edge.export.reference import TorchReference
    from edge.export.source import SourceModel

    source = SourceModel.open(model)
    publisher = Publisher(source)
    with tempfile.TemporaryDirectory(prefix="edge-reference-") as name:
        folder = Path(name)
        source.write_tokenizer(folder)
        files = {path.name: file_info(path) for path in folder.iterdir()}
        manifest = Manifest(
            format=TorchReference.format,
            quantization="float32",
            architecture=source.architecture,
            source=Source(source.name, source.weights_sha256, source.revision),
            tokenizer=TokenizerInfo(next(iter(files.values())).sha256, source.pieces),
            files=files,
            prompt_template=publisher.prompt.template,
            generation=publisher.generation.non_default(),
            limits=publisher.limits,
        )
        with Model(
            Artifact(folder, manifest), TorchReference(source, pieces=source.pieces)
        ) as opened:
            yield opened


def choose_references(manifests: Sequence[Manifest | None]) -> list[int | None]:
    """For each artifact the place of the first one that is its source model in float32, or None.

    An artifact with a shortlist answers less than its source; None in `manifests` is no artifact.
    """
    exact: dict[str, int] = {}
    for place, manifest in enumerate(manifests):
        if manifest and manifest.quantization in _FLOAT32 and not manifest.shortlist:
            exact.setdefault(manifest.source.weights_sha256, place)
    return [None if m is None else exact.get(m.source.weights_sha256) for m in manifests]


def with_agreement(accuracy: Accuracy, answers: Sequence[str], reference: str) -> Accuracy:
    """The accuracy with its agreement with these answers, which are `reference`'s (a name)."""
    equal = sum(mine == theirs for mine, theirs in zip(accuracy.predictions, answers, strict=True))
    share = equal / accuracy.rows
    intervals = dict(accuracy.intervals)
    if accuracy.rows >= MIN_ROWS:
        intervals["agreement"] = share_interval(share, accuracy.rows)
    return dataclasses.replace(accuracy, agreement=share, reference=reference, intervals=intervals)


def agree(
    names: Sequence[str],
    manifests: Sequence[Manifest | None],
    accuracies: Sequence[Measured],
    rows: Sequence[Row],
    reference: str | Path | None = None,
) -> list[Measured]:
    """All accuracies of a run with their agreement; None (nothing was measured) stays None.

    With `reference`, an artifact or model folder, all are compared with that.

    Raises:
        EdgeError: as `reference_answers`.
    """
    if reference is not None:
        answers = reference_answers(reference, rows)
        return [
            one if one is None else with_agreement(one, answers, str(reference))
            for one in accuracies
        ]
    agreeing: list[Measured] = []
    for accuracy, place in zip(accuracies, choose_references(manifests), strict=True):
        source = None if place is None else accuracies[place]
        if accuracy is None or place is None or source is None:
            agreeing.append(accuracy)
        else:
            agreeing.append(with_agreement(accuracy, source.predictions, names[place]))
    return agreeing
