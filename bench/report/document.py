"""The JSON document of a run: read from a file with its shape checked, before anything is shown."""

from __future__ import annotations

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

from edge.bench.artifacts.results import SCHEMA_VERSION
from edge.runtime.errors import DataError
from edge.runtime.platform.json_file import read_json
from edge.runtime.registry import missing_extra

# One run with thousands of samples for dozens of artifacts stays far below.
_MAX_BYTES = 256 << 20


def read_document(path: str | Path) -> dict[str, Any]:
    """The document in a file that `edge bench --json` wrote.

    Raises:
        DataError: no such file, no JSON, another version, or not of the schema's shape.
        MissingExtraError: jsonschema is not installed.
    """
    path = Path(path)
    try:
        values = read_json(path, _MAX_BYTES)
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})", path=path) from None
    except ValueError as error:
        raise DataError(f"not a report: {error}", path=path) from None
    check_document(values, path)
    return dict(values)


def check_document(values: object, path: Path | None = None) -> None:
    """Refuse what is no report of this version; `path` is for the message.

    Raises:
        DataError: another version, or not of the schema's shape.
        MissingExtraError: jsonschema is not installed.
    """
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match
    except ImportError:
        raise missing_extra("reading a report", "jsonschema", "bench") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"no report of `edge bench` with schema_version {SCHEMA_VERSION} (found {version!r});"
            " measure again with edge bench --json",
            path=path,
        )
    found = best_match(Draft202012Validator(schema()).iter_errors(values))
    if found is not None:
        message = found.message if len(found.message) <= 200 else found.message[:199] + "…"
        raise DataError(f"no report of `edge bench`: at {found.json_path} {message}", path=path)


@functools.cache
def schema() -> dict[str, Any]:
    """The document's JSON Schema (draft 2020-12)."""
    text = (resources.files("edge.bench.report") / "schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
