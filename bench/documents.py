"""JSON documents that the benchmarks write: their kinds and versions, read back with a size limit.

Every document is an object with `kind` and `schema_version`. Those of the kinds "engines" and
"speculation" hold a list `reports`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edge.runtime.errors import DataError, UsageError
from edge.runtime.platform import json_file
from edge.runtime.printing import shorten
from edge.runtime.registry import missing_extra

ARTIFACTS, ENGINES, SPECULATION = "artifacts", "engines", "speculation"
# Thousands of samples of dozens of artifacts stay far below.
MAX_BYTES = 256 << 20

R = TypeVar("R")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object from a file of at most 256 MiB.

    Raises:
        DataError: the file can't be read, is larger, or is not a JSON object.
    """
    try:
        values = json_file.read_json(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})", path=path) from None
    except ValueError as error:
        raise DataError(str(error), path=path) from None
    if not isinstance(values, dict):
        raise DataError("not a benchmark report: no JSON object", path=path)
    try:
        json.dumps(values, allow_nan=False)
    except ValueError:
        raise DataError("not JSON: it holds NaN or an infinite number", path=path) from None
    return values


def kind_of(values: Mapping[str, Any], path: str | Path | None = None) -> str:
    """The kind of a document: ARTIFACTS, ENGINES or SPECULATION.

    Raises:
        DataError: it has none of these.
    """
    kind = values.get("kind")
    if kind not in (ARTIFACTS, ENGINES, SPECULATION):
        known = ", ".join(f'"{one}"' for one in (ARTIFACTS, ENGINES, SPECULATION))
        raise DataError(
            f"not a benchmark report: its kind is {_short(repr(kind))} instead of one of {known}",
            path=path,
        )
    return str(kind)


def reports_document(kind: str, version: int, reports: Sequence[Any]) -> dict[str, Any]:
    """The document of reports that have `as_json`."""
    return {
        "kind": kind,
        "schema_version": version,
        "reports": [report.as_json() for report in reports],
    }


def parse_reports(
    report_class: type[R],
    values: Mapping[str, Any],
    *,
    kind: str,
    version: int,
    path: str | Path | None = None,
) -> list[R]:
    """The reports of a document that `reports_document` made; unknown fields are ignored.

    Args:
        report_class: a dataclass.
        values: the document.
        kind: that it must have.
        version: that it must have.
        path: for messages.

    Raises:
        DataError: another kind or version, or a field is missing or has the wrong type.
        MissingExtraError: pydantic is not installed.
    """
    found = values.get("kind"), values.get("schema_version")
    if found != (kind, version):
        raise DataError(
            f'not a report of kind "{kind}" with schema_version {version} (found'
            f" {_short(repr(found[0]))} and {_short(repr(found[1]))}); run the benchmark again",
            path=path,
        )
    return parse_as(list[report_class], values.get("reports"), path)  # type: ignore[valid-type]


def parse_as(wanted: type[R], values: object, path: str | Path | None = None) -> R:
    """JSON values as dataclasses, or lists of them; unknown fields are ignored.

    Raises:
        DataError: a field is missing, or has the wrong type or an impossible value.
        MissingExtraError: pydantic is not installed.
    """
    try:
        from pydantic import TypeAdapter, ValidationError
    except ImportError:
        raise missing_extra("reading a report", "pydantic", "bench") from None
    try:
        return TypeAdapter(wanted).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "reports"
        reason = f"at {_short(where)}: {_short(first['msg'])}"
    except UsageError as error:
        reason = _short(str(error))
    raise DataError(f"not a benchmark report: {reason}", path=path)


def _short(text: str) -> str:
    return shorten(text, 100)
