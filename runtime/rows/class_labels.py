"""Columns of class labels, as the datasets library writes them: numbers that stand for names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.runtime.errors import DataError
from edge.runtime.platform.json_file import parse_json

Labels = Mapping[str, Sequence[str]]
METADATA_KEY = b"huggingface"  # of a Parquet file: its features as JSON
_MAX_METADATA_BYTES = 8 << 20
_UNLABELED = -1


def labels_of_features(features: Mapping[str, Any] | None) -> Labels:
    """The names of each ClassLabel column of a data set, by column."""
    return {
        column: list(feature.names)
        for column, feature in (features or {}).items()
        if type(feature).__name__ == "ClassLabel"
    }


def labels_of_metadata(metadata: Mapping[bytes, bytes] | None) -> Labels:
    """The same of a Parquet file, by the metadata of its schema; empty if it has none."""
    text = (metadata or {}).get(METADATA_KEY, b"")
    if not text or len(text) > _MAX_METADATA_BYTES:
        return {}
    try:
        features = parse_json(text)["info"]["features"]
        found = {
            column: feature["names"]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {
        column: names
        for column, names in found.items()
        if isinstance(names, list) and all(isinstance(name, str) for name in names)
    }


def with_names(
    values: Mapping[str, object], labels: Labels, path: str | Path, line: int
) -> Mapping[str, object]:
    """The columns of a row with names in place of numbers; -1, no label, becomes None.

    Raises:
        DataError: A number without a name.
    """
    if not labels:
        return values
    named = dict(values)
    for column, names in labels.items():
        number = values.get(column)
        if type(number) is not int:
            continue
        if not _UNLABELED <= number < len(names):
            raise DataError(
                f"column {column!r} is {number}, but its ClassLabel has {len(names)} names",
                path=path,
                line=line,
            )
        named[column] = None if number == _UNLABELED else names[number]
    return named
