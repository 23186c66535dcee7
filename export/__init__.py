"""Export of a Hugging Face model to artifacts: one exporter per format, each checked for parity.

`export` does it in one call. The names below are imported on first use, so that importing this
package loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.export.api import export
    from edge.export.exported import Exported
    from edge.export.shortlist import ShortlistRequest
    from edge.export.source import SourceModel

__all__ = ["Exported", "ShortlistRequest", "SourceModel", "export"]

_MODULES = {
    "Exported": "edge.export.exported",
    "ShortlistRequest": "edge.export.shortlist",
    "SourceModel": "edge.export.source",
    "export": "edge.export.api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
