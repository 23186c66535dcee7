"""Agreement with the source model: the ratio of answers that equal the reference's.

The reference is the run's float32 artifact of the same weights, unless another is given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from edge.bench.artifacts.accuracy import Accuracy, default_answers
from edge.bench.artifacts.scores import MIN_ROWS, ratio_interval
from edge.runtime.artifact import Artifact
from edge.runtime.artifact.manifest import MANIFEST_NAME, Manifest, TokenizerInfo
from edge.runtime.model import Model, load
from edge.runtime.rows import Row

# Of artifacts that were all measured, or of some that were not.
Measured = TypeVar("Measured", Accuracy, Accuracy | None)

_FLOAT32 = ("float32", "f32")


def reference_answers(reference: str | Path, rows: Sequence[Row]) -> list[str]:
    """The answers of an artifact, or of a model folder run by transformers in float32.

    Raises:
        ArtifactError, ModelError: neither an artifact nor a T5-family model.
        MissingExtraError: the engine's library is not installed.
    """
    opened = load if (Path(reference) / MANIFEST_NAME).is_file() else open_source
    with opened(reference) as model:
        return default_answers(model, rows)


@contextlib.contextmanager
def open_source(model: str | Path) -> Iterator[Model]:
    """Open a model folder as a `Model` run by transformers, with an export's prompt and limits.

    Raises:
        ModelError: not a T5-family model, or its tokenizer is not the one of its training.
    """
    from edge.export.manifest import file_info, source_info
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
            source=source_info(source),
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
    """For each artifact, the index of the first float32 artifact of the same weights, or None.

    An artifact with a vocabulary shortlist is no reference: it answers less than its source. An
    entry of `manifests` may be None.
    """
    exact: dict[str, int] = {}
    for index, manifest in enumerate(manifests):
        if manifest and manifest.quantization in _FLOAT32 and not manifest.shortlist:
            exact.setdefault(manifest.source.weights_sha256, index)
    return [None if m is None else exact.get(m.source.weights_sha256) for m in manifests]


def with_agreement(accuracy: Accuracy, answers: Sequence[str], reference: str) -> Accuracy:
    """The accuracy with its agreement with `answers`, those of the artifact named `reference`."""
    equal = sum(mine == theirs for mine, theirs in zip(accuracy.predictions, answers, strict=True))
    ratio = equal / accuracy.rows
    intervals = dict(accuracy.intervals)
    if accuracy.rows >= MIN_ROWS:
        intervals["agreement"] = ratio_interval(ratio, accuracy.rows)
    return dataclasses.replace(accuracy, agreement=ratio, reference=reference, intervals=intervals)


def agree(
    names: Sequence[str],
    manifests: Sequence[Manifest | None],
    accuracies: Sequence[Measured],
    rows: Sequence[Row],
    reference: str | Path | None = None,
) -> list[Measured]:
    """All accuracies of a run with their agreement; None (not measured) stays None.

    Args:
        names: the artifacts' names.
        manifests: their manifests.
        accuracies: their accuracies on `rows`.
        rows: what they answered.
        reference: an artifact or model folder to compare all of them with.

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
    for accuracy, index in zip(accuracies, choose_references(manifests), strict=True):
        source = None if index is None else accuracies[index]
        if accuracy is None or index is None or source is None:
            agreeing.append(accuracy)
        else:
            agreeing.append(with_agreement(accuracy, source.predictions, names[index]))
    return agreeing
