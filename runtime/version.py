"""The version of this package."""

from __future__ import annotations

from importlib import metadata


def edge_version() -> str:
    """The installed version of edge-t5, or "0+unknown" if it is not installed."""
    try:
        return metadata.version("edge-t5")
    except metadata.PackageNotFoundError:
        return "0+unknown"
