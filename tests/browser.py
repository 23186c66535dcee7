"""Headless Chromium for the tests, driven by Playwright."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_TIMEOUT_MS = 60_000


class Browser:
    """One page. `errors` collects its exceptions and the errors on its console."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(_TIMEOUT_MS)
        page.on("console", lambda line: self._add(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: self._add(str(error)))

    def _add(self, error: str) -> None:
        self.errors.append(error)

    def open(self, url: str) -> None:
        """Load a page and forget the errors of the one before."""
        self.errors.clear()
        self.page.goto(url)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        return self.page.evaluate(expression)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium with an empty profile. Skips if it or Playwright is missing."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=list(_FLAGS)
        )
        try:
            yield Browser(browser.new_page())
        finally:
            browser.close()
