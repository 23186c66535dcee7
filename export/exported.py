"""What an export made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.export.tolerance import Parity
from edge.runtime.artifact.manifest import Manifest


@dataclass(frozen=True)
class Exported:
    """A published artifact: its folder, its manifest, and the parity that was measured.

    `needs_trust`: it is code that could not be recorded as exported here; see `edge.runtime.load`.
    `warnings`: generation settings of the model folder that the artifact does not have.
    """

    folder: Path
    manifest: Manifest
    parity: Parity
    needs_trust: bool = False
    warnings: tuple[str, ...] = ()
