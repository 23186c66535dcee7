"""JSON reports read from files and checked before anything is shown."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from edge.bench.artifacts.results import SCHEMA_VERSION
from edge.bench.documents import ARTIFACTS, kind_of, read_json
from edge.runtime.errors import DataError
from edge.runtime.registry import missing_extra


def read_document(path: str | Path) -> dict[str, Any]:
    """The report of artifacts in a file that `edge bench --json` wrote.

    Raises:
        DataError: the file can't be read, is not JSON, has another kind or version, or violates
            the schema.
        MissingExtraError: jsonschema is not installed.
    """
    path = Path(path)
    values = read_json(path)
    check_document(values, path)
    return values


def check_document(values: Mapping[str, Any], path: str | Path | None = None) -> None:
    """Check that a report is one of artifacts, has this version and follows the schema.

    Args:
        values: the JSON object.
        path: its file, for the message.

    Raises:
        DataError: it doesn't.
        MissingExtraError: jsonschema is not installed.
    """
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match
    except ImportError:
        raise missing_extra("reading a report", "jsonschema", "bench") from None
    kind, version = kind_of(values, path), values.get("schema_version")
    if kind != ARTIFACTS:
        raise DataError(
            f'a report of kind "{kind}" can\'t be used here; one of `edge bench` is needed',
            path=path,
        )
    if version != SCHEMA_VERSION:
        raise DataError(
            f"not a report of `edge bench` with schema_version {SCHEMA_VERSION}"
            f" (found {version!r}); measure again with edge bench --json",
            path=path,
        )
    found = best_match(Draft202012Validator(schema()).iter_errors(values))
    if found is not None:
        message = found.message if len(found.message) <= 200 else found.message[:199] + "…"
        raise DataError(f"not a report of `edge bench`: at {found.json_path} {message}", path=path)
    _check_winner(values, path)


def _check_winner(values: Mapping[str, Any], path: str | Path | None) -> None:
    """Check what a schema can't: that the winner is one of the measured results."""
    winner, results = values["winner"], values["results"]
    if winner is None:
        return
    for name in ("result", "best"):
        index = winner[name]
        if index >= len(results) or not (results[index]["accuracy"] and results[index]["latency"]):
            raise DataError(
                f"not a report of `edge bench`: at $.winner.{name} {index} is not the position of"
                " a result with accuracy and latency",
                path=path,
            )


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report of artifacts."""
    text = (resources.files("edge.bench.report") / "schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
