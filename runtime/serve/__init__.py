"""The HTTP service: `create_app` gives a FastAPI app, alone or to mount in one's own.

Needs the extra `serve`; nothing else in `edge.runtime` imports this package.
"""

from __future__ import annotations

from edge.runtime.serve.app import create_app
from edge.runtime.serve.settings import ServeSettings

__all__ = ["ServeSettings", "create_app"]
