"""The parity check of a published artifact, repeated."""

from __future__ import annotations

from collections.abc import Mapping

from edge.export.parity import ParityCheck
from edge.export.shortlist import read_shortlist
from edge.export.source import SourceModel
from edge.export.tolerance import Parity, Tolerance, check_tolerance
from edge.runtime.errors import ModelError
from edge.runtime.model import Model


def remeasure_parity(model: Model, source: SourceModel) -> Parity:
    """Compare a published artifact with its source model again.

    Raises:
        ModelError: `source` is not the model that the artifact was made from.
        ParityError: the difference exceeds the tolerance in the manifest.
    """
    manifest = model.artifact.manifest
    if source.weights_sha256 != manifest.source.weights_sha256:
        raise ModelError(
            f"{source.folder}: not the source of {model.artifact.folder}: the weights differ from"
            " those it was made from"
        )
    shortlist = read_shortlist(model.artifact)
    check = ParityCheck(source, model.prompt, manifest.limits, model.artifact.folder, shortlist)
    parity = check.measure(model)
    recorded = manifest.parity.get("tolerance")
    if isinstance(recorded, Mapping):
        check_tolerance(parity, Tolerance(**recorded), str(model.artifact.folder))
    return parity
