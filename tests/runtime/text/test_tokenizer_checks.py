"""Tokenizers that multiply texts, take very long or panic are refused in one sentence."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.errors import ArtifactError, InputTooLongError
from edge.runtime.text import tokenization
from edge.runtime.text.tokenization import Tokenizer

# The expression that splits texts for byte-level BPE in GPT-2 and CodeT5.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def changed(small_tokenizer: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """Write a changed tokenizer.json."""

    def change(edit: Edit) -> Path:
        values = json.loads((small_tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
        edit(values)
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(values), encoding="utf-8")
        return path

    return change


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def normalizers(*steps: dict[str, Any]) -> Edit:
    return lambda values: values.update(normalizer={"type": "Sequence", "normalizers": list(steps)})


def charsmap(replacement: bytes) -> dict[str, Any]:
    blob = (0).to_bytes(4, "little") + replacement + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (normalizers(*[replace({"String": "e"}, "e" * 1000)] * 4), "times longer"),
        (normalizers(*[replace({"String": "e"}, "ee")] * 4), "16 times longer"),
        (
            normalizers({"type": "Prepend", "prepend": "x" * 10_000}),
            "prepend of the normalizer has 10,000",
        ),
        (normalizers({"type": "Prepend", "prepend": "x" * 1_000_000}), "string of 1,000,002 bytes"),
        (normalizers(replace({"Regex": "(a|aa)+$"}, "")), "can take very long"),
        (normalizers(replace({"Regex": "a*a*b"}, "")), "can take very long"),
        (normalizers(replace({"Regex": "(?:a{5}){9999}"}, "")), "can take very long"),
        (normalizers(replace({"Regex": r"(a+)\1"}, "")), "can take very long"),
        (normalizers(replace({"Regex": "(a*|b)(a*|c)(a*|d)(a*|e)z"}, "")), "can take very long"),
        (normalizers(replace({"Regex": "a?" * 40 + "b"}, "")), "can take very long"),
        (normalizers(charsmap(b"x" * 1000)), "precompiled_charsmap"),
        (lambda v: v["model"]["vocab"].append(["x" * 10_000, -1.0]), "a piece has 10,000"),
        # Freeing the tokenizer would overflow the stack.
        (lambda v: v["model"]["vocab"].append(["x" * 200_000, -1.0]), "string of 200,002 bytes"),
        (lambda v: v.update(decoder=replace({"String": "e"}, "e" * 1000)), "the decoder makes"),
        (
            lambda v: v.update(
                pre_tokenizer={
                    "type": "Split",
                    "pattern": {"Regex": "(a|aa)+$"},
                    "behavior": "Isolated",
                    "invert": False,
                }
            ),
            "can take very long",
        ),
        (lambda v: v["model"].update(vocab=[["x", "y"]]), "not a tokenizer.json"),
    ],
)
def test_refused(changed: Callable[[Edit], Path], edit: Edit, complaint: str) -> None:
    path = changed(edit)
    with pytest.raises(ArtifactError, match=complaint) as caught:
        Tokenizer(path, eos=1)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "edit",
    [
        normalizers(replace({"Regex": " {2,}"}, "▁"), {"type": "Prepend", "prepend": "▁"}),
        normalizers(replace({"Regex": r"\s+(?!\S)|\s+"}, " ")),
        normalizers(replace({"Regex": r"[+*]{2}\(\+\)+"}, " ")),
        normalizers(replace({"Regex": GPT2}, " ")),
        normalizers(charsmap("صلى الله عليه وسلم".encode())),
    ],
)
def test_usual_ones_are_taken(changed: Callable[[Edit], Path], edit: Edit) -> None:
    Tokenizer(changed(edit), eos=1)


def test_the_length_of_texts_is_bounded(
    changed: Callable[[Edit], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "MAX_TEXT_CHARS", 100)
    tokenizer = Tokenizer(changed(normalizers(replace({"String": "e"}, "eeee"))), eos=1)
    assert tokenizer.encode(["e" * 25])
    with pytest.raises(InputTooLongError, match="26 characters, the tokenizer takes at most 25"):
        tokenizer.encode(["yes", "e" * 26])


def test_a_panic_is_an_error_with_the_file_s_name(
    small_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        """As pyo3 raises it."""

    class Panicking:
        def __getattr__(self, name: str) -> Any:
            raise PanicException("called `Result::unwrap()` on an `Err` value")

    tokenizer = Tokenizer(small_tokenizer / "tokenizer.json", eos=1)
    monkeypatch.setattr(tokenizer, "_tokenizer", Panicking())
    for call in (lambda: tokenizer.encode(["x"]), lambda: tokenizer.decode([[1]])):
        with pytest.raises(ArtifactError, match=r"tokenizer\.json: .*Result::unwrap"):
            call()
