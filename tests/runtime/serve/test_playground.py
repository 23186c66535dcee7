"""The page at `/`, in a real browser with a real service.

The page's policy forbids `eval`, and so Playwright's `wait_for_function`: wait for selectors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser import Browser, chromium
from edge.runtime import load
from edge.runtime.model import Model
from serving import running

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.alone

TEXT = "where was um was the bridge built?"


@pytest.fixture(scope="module")
def models(artifacts: Path) -> Iterator[dict[str, Model]]:
    with load(artifacts / "onnx-int8") as small, load(artifacts / "onnx-float32") as exact:
        yield {"small": small, "<b>exact": exact}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def open_playground(browser: Browser, url: str) -> Page:
    browser.open(url)
    wait_for_models(browser.page)
    return browser.page


def wait_for_models(page: Page) -> None:
    page.wait_for_selector("#model option", state="attached")


def ask(page: Page, text: str, answers: int = 1) -> list[str]:
    """Send a message by keyboard; returns the statistics below the answers."""
    stats = page.locator(".stats")
    before = stats.count()
    page.keyboard.insert_text(text)
    page.keyboard.press("Enter")
    stats.nth(before + answers - 1).wait_for()
    page.wait_for_selector("#send:text-is('Send')")
    return stats.all_text_contents()[before:]


def test_a_chat_by_keyboard_alone(models: dict[str, Model], browser: Browser) -> None:
    with running(models, target_ms=60_000) as (client, _):
        page = open_playground(browser, f"{client.base_url}/")
        assert page.evaluate("document.activeElement.id") == "text"
        assert "target 60000 ms" in page.inner_text("#about")
        [stats] = ask(page, TEXT)
        expected = models["small"].generate(TEXT)
        assert page.locator(".assistant span").all_text_contents() == [expected.text]
        assert stats.startswith("small · ")
        assert re.search(r"\d+ ms · first text after \d+ ms · ", stats)
        assert f" · {expected.output_tokens} token" in stats
        assert page.locator(".stats.ok").count() == 1
        # The previous message comes back. Another model answers it, then all of them do.
        page.keyboard.press("ArrowUp")
        assert page.input_value("#text") == TEXT
        page.keyboard.press("Alt+ArrowDown")
        assert page.input_value("#model") == "<b>exact"
        [stats] = ask(page, "")
        assert stats.startswith("<b>exact · ")
        last = page.locator(".assistant span").all_text_contents()[-1]
        assert last == models["<b>exact"].generate(TEXT).text
        page.keyboard.press("Alt+ArrowDown")
        both = ask(page, "who made it?", answers=2)
        assert [line.split(" · ")[0] for line in both] == ["small", "<b>exact"]
        # Shift+Enter is a new line, not a message.
        page.keyboard.insert_text("one")
        page.keyboard.press("Shift+Enter")
        assert page.input_value("#text").startswith("one\n")
    assert browser.errors == []


def test_errors_and_options_are_shown(models: dict[str, Model], browser: Browser) -> None:
    option = "document.querySelector('[data-name=max_new_tokens]').value = {!r}"
    with running({"small": models["small"]}) as (client, _):
        page = open_playground(browser, f"{client.base_url}/")
        page.evaluate(option.format("2"))
        [stats] = ask(page, TEXT)
        assert " · 2 tokens" in stats
        page.evaluate(option.format("9999"))
        page.keyboard.insert_text(TEXT)
        page.keyboard.press("Enter")
        page.wait_for_selector(".error")
        assert "9999" in page.inner_text(".error")
        # Neither a message nor an answer is ever parsed as HTML.
        page.evaluate(option.format(""))
        ask(page, "<img src=x onerror=alert(1)>")
        assert page.locator("img").count() == 0


def test_a_key_is_asked_for(models: dict[str, Model], browser: Browser) -> None:
    with running({"small": models["small"]}, api_keys=("s3cret",)) as (client, _):
        browser.open(f"{client.base_url}/")
        page = browser.page
        page.wait_for_selector("#secret:focus")
        page.keyboard.insert_text("s3cret")
        page.keyboard.press("Enter")
        wait_for_models(page)
        assert page.locator("#unlock").is_hidden()
        page.wait_for_selector("#text:focus")
        ask(page, TEXT)
        assert page.evaluate("localStorage.length + sessionStorage.length") == 0
        assert "s3cret" not in page.content()


def test_the_policy_blocks_everything_else(models: dict[str, Model], browser: Browser) -> None:
    with running({"small": models["small"]}) as (client, _):
        page = open_playground(browser, f"{client.base_url}/")
        page.evaluate(
            "() => { const s = document.createElement('script'); s.textContent = 'hacked = 1';"
            " document.body.append(s);"
            " const b = document.createElement('button'); b.setAttribute('onclick', 'hacked = 1');"
            " document.body.append(b); b.click(); }"
        )
        assert page.evaluate("typeof hacked") == "undefined"
        blocked = "fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.message)"
        assert page.evaluate(blocked) == "Failed to fetch"
        assert any("Content Security Policy" in error for error in browser.errors)
        assert any("connect-src" in error for error in browser.errors)


def test_the_page_is_one_file_that_loads_nothing(models: dict[str, Model]) -> None:
    with running({"small": models["small"]}, api_keys=("s3cret",)) as (client, _):
        response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    text = response.text
    assert len(text.encode()) < 20_000
    assert not re.findall(r"https?://|src=|@import|url\(|innerHTML", text)
