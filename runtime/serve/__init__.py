"""HTTP service: `create_app` returns a FastAPI app, to run alone or to mount in another app.

Needs the extra `serve`. Nothing else in `edge.runtime` imports this package.
"""

from __future__ import annotations

from edge.runtime.serve.app import create_app
from edge.runtime.serve.settings import ServeSettings

__all__ = ["ServeSettings", "create_app"]
