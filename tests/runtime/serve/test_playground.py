"""The page at `/`, in a real browser against a real service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser, chromium, needs_chromium
from edge.runtime import load
from edge.runtime.model import Model
from serving import running

pytestmark = pytest.mark.alone

TEXT = "where was um was the bridge built?"


@pytest.fixture(scope="module")
def models(artifacts: Path) -> Iterator[dict[str, Model]]:
    with load(artifacts / "onnx-int8") as small, load(artifacts / "onnx-float32") as exact:
        yield {"small": small, "<b>exact": exact}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def open_page(browser: Browser, address: str) -> None:
    browser.complaints.clear()
    browser.open(address)
    browser.wait("document.getElementById('model').length > 0")


def ask(browser: Browser, text: str, answers: int = 1) -> list[str]:
    """The figures below the answers that come."""
    before = browser.value("document.querySelectorAll('.figures').length")
    browser.type(text)
    browser.press("Enter")
    browser.wait(f"document.querySelectorAll('.figures').length == {before + answers}")
    browser.wait("document.getElementById('send').textContent == 'Send'")
    figures = "[...document.querySelectorAll('.figures')].map(each => each.textContent)"
    return list(browser.value(figures)[before:])


def answers(browser: Browser) -> list[str]:
    found = "[...document.querySelectorAll('.assistant span')].map(each => each.textContent)"
    return list(browser.value(found))


@needs_chromium
def test_a_chat_by_keyboard_alone(models: dict[str, Model], browser: Browser) -> None:
    with running(models, target_ms=60_000) as (client, _):
        open_page(browser, f"{client.base_url}/")
        assert browser.value("document.activeElement.id") == "text"
        assert "target 60000 ms" in browser.value("document.getElementById('about').textContent")
        [figures] = ask(browser, TEXT)
        expected = models["small"].generate(TEXT)
        assert answers(browser) == [expected.text]
        assert figures.startswith("small · ")
        assert re.search(r"\d+ ms · first text after \d+ · ", figures)
        assert f" · {expected.output_tokens} token" in figures
        assert browser.value("document.querySelector('.figures').classList.contains('ok')")
        # The last text comes back, and another artifact answers it, then all of them do.
        browser.press("ArrowUp")
        assert browser.value("document.getElementById('text').value") == TEXT
        browser.press("ArrowDown", alt=True)
        assert browser.value("document.getElementById('model').value") == "<b>exact"
        [figures] = ask(browser, "")
        assert figures.startswith("<b>exact · ")
        assert answers(browser)[-1] == models["<b>exact"].generate(TEXT).text
        browser.press("ArrowDown", alt=True)
        both = ask(browser, "who made it?", answers=2)
        assert [line.split(" · ")[0] for line in both] == ["small", "<b>exact"]
        # Shift+Enter is a new line, not a message.
        browser.type("one")
        browser.press("Enter", shift=True)
        assert browser.value("document.getElementById('text').value.startsWith('one\\n')")
    assert browser.complaints == []


@needs_chromium
def test_errors_and_options_reach_the_reader(models: dict[str, Model], browser: Browser) -> None:
    with running({"small": models["small"]}) as (client, _):
        open_page(browser, f"{client.base_url}/")
        browser.value("document.querySelector('[data-name=max_new_tokens]').value = '2'")
        [figures] = ask(browser, TEXT)
        assert " · 2 tokens" in figures
        browser.value("document.querySelector('[data-name=max_new_tokens]').value = '9999'")
        browser.type(TEXT)
        browser.press("Enter")
        browser.wait("document.querySelector('.error') !== null")
        assert "9999" in browser.value("document.querySelector('.error').textContent")
        # Text is text: neither a question nor an answer becomes part of the page.
        browser.value("document.querySelector('[data-name=max_new_tokens]').value = ''")
        ask(browser, "<img src=x onerror=alert(1)>")
        assert browser.value("document.querySelectorAll('img').length") == 0


@needs_chromium
def test_a_key_is_asked_for(models: dict[str, Model], browser: Browser) -> None:
    with running({"small": models["small"]}, api_keys=("s3cret",)) as (client, _):
        browser.open(f"{client.base_url}/")
        browser.wait("document.activeElement.id == 'secret'")
        browser.type("s3cret")
        browser.press("Enter")
        browser.wait("document.getElementById('model').length > 0")
        assert browser.value("document.getElementById('unlock').hidden")
        browser.wait("document.activeElement.id == 'text'")
        ask(browser, TEXT)
        assert browser.value("localStorage.length + sessionStorage.length") == 0
        assert "s3cret" not in browser.value("document.documentElement.outerHTML")


@needs_chromium
def test_the_policy_lets_nothing_else_run(models: dict[str, Model], browser: Browser) -> None:
    with running({"small": models["small"]}) as (client, _):
        open_page(browser, f"{client.base_url}/")
        browser.value(
            "(() => { const s = document.createElement('script'); s.textContent = 'hacked = 1';"
            " document.body.append(s);"
            " const b = document.createElement('button'); b.setAttribute('onclick', 'hacked = 1');"
            " document.body.append(b); b.click(); })()"
        )
        assert browser.value("typeof hacked") == "undefined"
        blocked = "fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.message)"
        assert browser.value(blocked) == "Failed to fetch"
        assert any("Content Security Policy" in told for told in browser.complaints)
        assert any("connect-src" in told for told in browser.complaints)


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
