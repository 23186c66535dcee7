"""Chat page at `/`: a single HTML file that loads nothing from other sites."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response


def playground_router() -> APIRouter:
    """Create the route `GET /`. The page finds the API relative to its own address."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        text, policy = _page()
        return HTMLResponse(
            text,
            headers={
                "content-security-policy": policy,
                "cache-control": "no-cache",
                "referrer-policy": "no-referrer",
                "x-content-type-options": "nosniff",
            },
        )

    return router


@functools.cache
def _page() -> tuple[str, str]:
    """The page and its content security policy: its own script and style, by hash, and this API."""
    text = (
        resources.files("edge.runtime.serve")
        .joinpath("playground.html")
        .read_text(encoding="utf-8")
    )
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_csp_hash('script', text)}",
            f"style-src {_csp_hash('style', text)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return text, policy


def _csp_hash(tag: str, text: str) -> str:
    """The hash source of the page's only inline element with this tag.

    Source: https://www.w3.org/TR/CSP3/#grammardef-hash-source
    """
    [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
