"""The page at `/`: a chat and playground in one file, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response


def page_router() -> APIRouter:
    """`GET /` for the service's app; the page calls the API beside it, wherever it is mounted."""
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
    """The page and its policy: this script and this style, by their hashes, and our own API."""
    text = (
        resources.files("edge.runtime.serve")
        .joinpath("playground.html")
        .read_text(encoding="utf-8")
    )
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash_of('script', text)}",
            f"style-src {_hash_of('style', text)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return text, policy


def _hash_of(tag: str, text: str) -> str:
    """The source expression of the one inline element of this kind.

    https://www.w3.org/TR/CSP3/#grammardef-hash-source
    """
    [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
