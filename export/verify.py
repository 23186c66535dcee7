"""The parity check of a published artifact, repeated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edge.export.base import EXPORTERS
from edge.export.parity import ParityCheck
from edge.export.shortlist import read_shortlist
from edge.export.source import SourceModel
from edge.export.tolerance import Parity, Tolerance, check_tolerance
from edge.runtime.artifact import Artifact
from edge.runtime.artifact.manifest import MANIFEST_NAME
from edge.runtime.errors import ArtifactError, EdgeError, ModelError
from edge.runtime.model import Model


@dataclass(frozen=True)
class RemeasuredParity:
    """The parity of a published artifact, within its tolerance.

    Attributes:
        parity: what was measured.
        tolerance: the limits that the manifest records, or the default ones; None if there are
            none, and nothing was compared.
        default: what `edge export` uses for this format and quantization by itself; None if it is
            not known.
    """

    parity: Parity
    tolerance: Tolerance | None
    default: Tolerance | None

    @property
    def is_loose(self) -> bool:
        """Whether the manifest allows more than `edge export` does by itself.

        An artifact chooses its own limits: this one would pass as something that it is not.
        """
        if self.tolerance is None or self.default is None:
            return False
        return self.tolerance.allows_more_than(self.default)


def remeasure_parity(model: Model, source: SourceModel) -> RemeasuredParity:
    """Compare a published artifact with its source model again.

    Raises:
        ArtifactError: the tolerance in the manifest is malformed.
        ModelError: `source` is not the model that the artifact was made from.
        ParityError: the difference exceeds the tolerance in the manifest.
    """
    manifest = model.artifact.manifest
    default = _default_tolerance(manifest.format, manifest.quantization)
    tolerance = recorded_tolerance(model.artifact) or default
    if source.weights_sha256 != manifest.source.weights_sha256:
        raise ModelError(
            f"{source.folder}: not the source of {model.artifact.folder}: the weights differ from"
            " those it was made from"
        )
    shortlist = read_shortlist(model.artifact)
    check = ParityCheck(source, model.prompt, manifest.limits, model.artifact.folder, shortlist)
    parity = check.measure(model)
    if tolerance is not None:
        check_tolerance(parity, tolerance, str(model.artifact.folder))
    return RemeasuredParity(parity, tolerance, default)


def recorded_tolerance(artifact: Artifact) -> Tolerance | None:
    """The tolerance in an artifact's manifest; None if it records none.

    Raises:
        ArtifactError: it is malformed.
    """
    values = artifact.manifest.parity.get("tolerance")
    if values is None:
        return None
    if isinstance(values, Mapping) and {*values} == {"greedy", "max_error", "mean_error"}:
        greedy, largest, mean = values["greedy"], values["max_error"], values["mean_error"]
        if isinstance(greedy, bool) and (largest is None or _is_limit(largest)) and _is_limit(mean):
            return Tolerance(greedy, largest, mean)
    raise ArtifactError(
        f"{artifact.folder / MANIFEST_NAME}: parity.tolerance must have greedy (true or false),"
        " max_error (a number or null) and mean_error (a number)"
    )


def _is_limit(value: object) -> bool:
    """Whether a value is a finite number of nats, 0 or more."""
    return type(value) in (int, float) and 0 <= value < math.inf  # type: ignore[operator]


def _default_tolerance(format_name: str, quantization: str) -> Tolerance | None:
    """The exporter's own tolerance; None if it is not installed or has no such quantization."""
    try:
        return EXPORTERS.load(format_name).tolerances.get(quantization)
    except EdgeError:
        return None
