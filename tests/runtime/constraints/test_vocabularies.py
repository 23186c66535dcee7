"""Constraints over each kind of vocabulary, followed at random: decoded texts fit exactly."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

pytest.importorskip("llguidance")

from edge.runtime.constraints.compiler import ConstraintCompiler
from edge.runtime.engines.base import Vocabulary
from edge.runtime.errors import UsageError
from edge.runtime.options import GenerationOptions
from edge.runtime.text.tokenization import Tokenizer
from tokenizer_samples import MAKERS, Maker, bytes_of_text, extended, t5

PLAIN = r"[a-z]{1,5}(?: \([A-Z][a-z]{0,3}\))?|[0-9]{1,3}%| ?x"
SPACED = r"(?:  )?\{[a-z`\\]{1,4}\}(?:\n\t[a-z ]{1,5}){1,2}"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a b": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "c": {"type": "string", "maxLength": 5},
    },
    "required": ["a b", "c"],
    "additionalProperties": False,
}


def walk(
    compiler: ConstraintCompiler, tokenizer: Tokenizer, choose: random.Random, **options: Any
) -> str:
    """An answer of random tokens, each allowed where it stands."""
    constraint = compiler.compile(GenerationOptions(max_new_tokens=300, **options))
    assert constraint is not None
    matcher = constraint.matcher([1])
    ids: list[int] = []
    while True:
        allowed = matcher.allowed()
        found = np.flatnonzero(allowed) if allowed.dtype == np.bool_ else allowed
        assert len(found), matcher.dead_end()
        # Like a model, that ends where it can and prefers short pieces.
        token = 1 if 1 in found and choose.random() < 0.3 else int(choose.choice(found))
        ids.append(token)
        if token == 1:
            break
        copy = matcher.copy()
        matcher.advance(token)
        assert np.array_equal(copy.allowed(), allowed)
    [text] = tokenizer.decode([ids])
    assert constraint.text(ids) == text
    return text


def compiler_of(make: Maker, shared: Path, folder: Path) -> tuple[ConstraintCompiler, Tokenizer]:
    tokenizer = make(shared, folder)
    vocabulary = Vocabulary(tokenizer.pieces + 28, tokenizer.pieces, pad=0, eos=1, start=0)
    return ConstraintCompiler(tokenizer, vocabulary), tokenizer


@pytest.mark.parametrize("make", MAKERS)
def test_patterns_fit_in_each_vocabulary(make: Maker, shared: Path, tmp_path: Path) -> None:
    compiler, tokenizer = compiler_of(make, shared, tmp_path)
    choose = random.Random(1)
    found = {walk(compiler, tokenizer, choose, regex=PLAIN) for _ in range(100)}
    assert all(re.fullmatch(PLAIN, text) for text in found)
    assert len(found) > 20
    labels = ("a label", "label", "a", "")
    assert {walk(compiler, tokenizer, choose, choices=labels) for _ in range(60)} == {*labels}


@pytest.mark.parametrize("make", [extended, bytes_of_text])
def test_json_and_spaces_fit_where_they_can_be_written(
    make: Maker, shared: Path, tmp_path: Path
) -> None:
    compiler, tokenizer = compiler_of(make, shared, tmp_path)
    choose = random.Random(2)
    for _ in range(40):
        assert re.fullmatch(SPACED, walk(compiler, tokenizer, choose, regex=SPACED))
    for _ in range(40):
        text = walk(compiler, tokenizer, choose, json_schema=SCHEMA)
        jsonschema.validate(json.loads(text), SCHEMA)
    assert walk(compiler, tokenizer, choose, choices=("  {\n\t",)) == "  {\n\t"


def test_what_t5_lacks_is_refused(shared: Path, tmp_path: Path) -> None:
    compiler, _ = compiler_of(t5, shared, tmp_path)
    for options, said in (
        ({"regex": SPACED}, "nothing that this model can write"),
        ({"json_schema": SCHEMA}, "nothing that this model can write"),
        ({"choices": ("a\nb",)}, "its vocabulary has no '\\\\n'"),
        ({"json_schema": {"enum": ["{", "a"]}}, "can't write '{' of the JSON Schema"),
    ):
        with pytest.raises(UsageError, match=re.escape(said) if "\\" not in said else "no '"):
            compiler.compile(GenerationOptions(**options))


def test_an_end_token_with_text_belongs_to_the_answer(shared: Path, tmp_path: Path) -> None:
    """A model whose answers end with a period, or with eos."""
    tokenizer = t5(shared, tmp_path)
    period = tokenizer.names().index(".")
    vocabulary = Vocabulary(32128, tokenizer.pieces, pad=0, eos=1, start=0, ends=(period,))
    compiler = ConstraintCompiler(tokenizer, vocabulary)
    constraint = compiler.compile(GenerationOptions(regex=r"[a-z]{3}\.|\.\."))
    assert constraint is not None
    matcher = constraint.matcher([1])
    names = tokenizer.names()
    assert matcher.allowed()[names.index("▁the")]
    assert not matcher.allowed()[period]
    matcher.advance(names.index("▁the"))
    assert np.flatnonzero(matcher.allowed()).tolist() == [period]
    assert matcher.forced() == period
    with pytest.raises(UsageError, match="can't end"):
        compiler.compile(GenerationOptions(choices=("no period",)))
    closed = compiler.compile(GenerationOptions(choices=("one.", "two.")))
    assert closed is not None
    ids = tokenizer.encode(["one."])[0][:-1]
    walked = closed.matcher([1])
    for token in ids[:-1]:
        assert token in walked.allowed()
        walked.advance(token)
    assert walked.allowed().tolist() == [period]
    assert closed.text(ids) == "one."
