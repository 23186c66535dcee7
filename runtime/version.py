"""The version of this package."""

from __future__ import annotations

from importlib import metadata


def edge_version() -> str:
    """The installed version, or "0+unknown" in a source tree that is not installed."""
    try:
        return metadata.version("edge-t5")
    except metadata.PackageNotFoundError:
        return "0+unknown"
