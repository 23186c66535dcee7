"""JSON files of limited size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: str | Path, max_bytes: int) -> Any:
    """Parse a JSON file, unless it is too large.

    Args:
        path: The file, in UTF-8.
        max_bytes: The largest size that is read.

    Raises:
        OSError: The file is missing or not readable.
        ValueError: The file is larger than `max_bytes`, or not JSON. The message says which and
            does not name the file.
    """
    path = Path(path)
    if (size := path.stat().st_size) > max_bytes:
        raise ValueError(f"larger than the limit: {size:,} bytes, at most {max_bytes:,}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not JSON: not UTF-8 (byte {error.start})") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
