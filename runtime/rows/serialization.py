"""Rows written as JSON, whatever types their columns have."""

from __future__ import annotations

import base64
from typing import Any

from edge.runtime.platform.json_file import dump_json


def to_json(values: Any, *, ensure_ascii: bool = False) -> str:
    """Serialize to one line of JSON that is valid UTF-8.

    Non-ASCII characters are kept, unless a text holds a lone surrogate or `ensure_ascii` is on.
    Values without a JSON type, as Parquet and data sets have them, are written as text: bytes in
    base64, dates, times and decimals as Python prints them. NaN and infinite numbers become null.
    """
    text = dump_json(values, ensure_ascii=ensure_ascii, default=_as_text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return dump_json(values, ensure_ascii=True, default=_as_text)
    return text


def _as_text(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    return str(value)
