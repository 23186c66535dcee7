"""Constrained answers of an untrained model: all fit, whatever the search and the engine."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from edge.runtime import ConstraintError, Generation, Model, UsageError
from samples import TEXTS

PATTERN = r"[a-z]{1,6}(?: [a-z]{1,6}){0,2}|[0-9]{1,3}\.[0-9]{2}|\(ok\)"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "kind": {"enum": ["river", "old town", "bridge"]},
        "year": {"type": "integer", "minimum": 0, "maximum": 2100},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
    },
    "required": ["name", "kind", "year"],
    "additionalProperties": False,
}
LABELS = ["bridge", "bridges", "the old town", "a", "42", "who made the river?", ""]
GRAMMAR = 'start: NUMBER (SIGN NUMBER){0,2}\nSIGN: "+" | "-" | " * "\nNUMBER: /[1-9][0-9]{0,2}/\n'


def fits_schema(answer: Generation, _: str) -> bool:
    jsonschema.validate(json.loads(answer.text), SCHEMA)
    return True


def copies(answer: Generation, text: str) -> bool:
    """Whether each word between spaces is one of the input's, but for the signs around it."""

    def words(value: str) -> set[str]:
        return {found[0] for part in value.split() if (found := re.search(r"\w(?:\S*\w)?", part))}

    whole = answer.text if answer.finish_reason == "eos" else answer.text.rpartition(" ")[0]
    signs = set(re.findall(r"[^\w\s]", whole))
    return words(whole) <= words(text) | {"by"} and signs <= set(text) | {"!"}


Check = Callable[[Generation, str], object]
CONSTRAINTS: dict[str, tuple[dict[str, Any], Check]] = {
    "regex": ({"regex": PATTERN}, lambda answer, _: re.fullmatch(PATTERN, answer.text)),
    "json_schema": ({"json_schema": SCHEMA}, fits_schema),
    "choices": ({"choices": LABELS}, lambda answer, _: answer.text in LABELS),
    "grammar": (
        {"grammar": GRAMMAR},
        lambda answer, _: re.fullmatch(
            r"[1-9][0-9]{0,2}(?:(?:\+|-| \* )[1-9][0-9]{0,2}){0,2}", answer.text
        ),
    ),
    "copy_only": ({"copy_only": True, "copy_allow": ["by!"]}, copies),
}
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalties": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "min_new_tokens": 3},
    "sampling": {"do_sample": True, "temperature": 3.0, "top_k": 0, "seed": 5},
    "beams": {"num_beams": 4, "num_return_sequences": 2},
}


def answers(model: Model, texts: list[str], **options: Any) -> list[tuple[str, Generation]]:
    found = model.generate(texts, max_new_tokens=160, **options)
    return [
        (text, each)
        for text, answer in zip(texts, found, strict=True)
        for each in (answer, *answer.alternatives)
    ]


def read_by_model(model: Model, text: str) -> str:
    return model.tokenizer.decode(model.encode([text])[0])[0]


def check_all(model: Model, kind: str, search: str, texts: list[str], **more: Any) -> int:
    if search == "beams" and not model.engine.supports_beams:
        pytest.skip("no beams")
    options, fits = CONSTRAINTS[kind]
    found = answers(model, texts, **options, **SEARCHES[search], **more)
    for text, answer in found:
        # Only copies have no longest answer.
        assert answer.finish_reason == "eos" or kind == "copy_only"
        assert fits(answer, read_by_model(model, text)), answer.text
        assert model.tokenizer.eos not in answer.token_ids
    return len(found)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_answers_fit(kind: str, search: str, model: Model) -> None:
    more = {"num_return_sequences": 4} if search == "sampling" else {}
    check_all(model, kind, search, list(TEXTS), **more)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_a_thousand_answers_fit(kind: str, model: Model) -> None:
    texts = [f"{number} {text}" for number in range(25) for text in TEXTS]
    total = 0
    for search in ("greedy", "sampling", "beams"):
        if search == "beams" and not model.engine.supports_beams:
            continue
        more = {"num_return_sequences": 10} if search == "sampling" else {}
        total += check_all(model, kind, search, texts, **more)
    assert total >= 1000


def test_answers_vary(model: Model) -> None:
    """The constraints leave what they can to the model."""
    for kind in ("regex", "json_schema", "grammar", "copy_only"):
        options, _ = CONSTRAINTS[kind]
        found = answers(
            model, [TEXTS[0]], **options, **SEARCHES["sampling"], num_return_sequences=16
        )
        assert len({answer.text for _, answer in found}) > 4, kind


def test_scores_are_the_models_own(model: Model) -> None:
    for options in ({"choices": LABELS[:3]}, {"regex": PATTERN}):
        answer = model.generate(TEXTS[1], **options)
        ids = model.encode([TEXTS[1]])[0]
        [scores] = model.score_tokens(ids, [[*answer.token_ids, model.tokenizer.eos]])
        assert answer.score == pytest.approx(float(scores.mean()), abs=1e-3)


def test_a_choice_is_the_best_of_all(onnx: Model) -> None:
    """With as many beams as choices, the answer is the one with the best score."""
    labels = LABELS[:-1]
    best = onnx.generate(TEXTS[0], choices=labels, num_beams=16)
    by_score = {label: float(onnx.score(TEXTS[0], label).mean()) for label in labels}
    assert best.text == max(by_score, key=by_score.__getitem__)
    assert len({best.text, *(other.text for other in best.alternatives)}) == 1


def test_batches_answer_as_single_texts_do(model: Model) -> None:
    for options, _ in CONSTRAINTS.values():
        together = model.generate(list(TEXTS), max_new_tokens=60, **options)
        alone = [model.generate(text, max_new_tokens=60, **options) for text in TEXTS]
        assert [a.text for a in together] == [a.text for a in alone]
        assert [a.score for a in together] == pytest.approx([a.score for a in alone], abs=1e-3)


def test_streams_and_parts(model: Model) -> None:
    for options, _ in CONSTRAINTS.values():
        with model.stream(TEXTS[0], max_new_tokens=60, **options) as stream:
            text = "".join(stream)
        assert (
            text
            == stream.result.text
            == model.generate(TEXTS[0], max_new_tokens=60, **options).text
        )
    long = " ".join(TEXTS * 40)
    answer = model.generate(long, on_long="chunk", choices=["a", "42"])
    assert answer.parts > 1
    assert set(answer.text.split()) <= {"a", "42"}


def test_a_choice_with_one_way_takes_few_steps(onnx: Model, monkeypatch: Any) -> None:
    from edge.runtime.engines.onnx.engine import _OnnxState

    fed: list[int] = []
    advance = _OnnxState.advance

    def counted(self: _OnnxState, tokens: Any) -> Any:
        fed.append(tokens.shape[1])
        return advance(self, tokens)

    monkeypatch.setattr(_OnnxState, "advance", counted)
    answer = onnx.generate(TEXTS[0], choices=["who made the old river in the town?"])
    assert answer.output_tokens > 4
    assert fed == [answer.output_tokens]
    fed.clear()
    answer = onnx.generate(TEXTS[0], choices=["the river", "old bridge by the town"])
    assert len(fed) == 2
    assert sum(fed) == answer.output_tokens


# -- what can't be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"choices": ["漢"]}, "can't write the choice '漢': its vocabulary has no '漢'"),
        ({"choices": ["two  spaces"]}, "its tokenizer changes it"),
        ({"choices": ["the old town and the river"], "max_new_tokens": 3}, "max_new_tokens must"),
        ({"choices": []}, "choices must be at least one text"),
        ({"choices": [3]}, "choices must be a list of texts"),
        ({"choices": ["a"], "regex": "b"}, "choices and regex can't be combined"),
        ({"regex": "漢+"}, "nothing that this model can write fits the regular expression"),
        ({"regex": "a漢"}, "nothing that this model can write fits the regular expression"),
        ({"regex": "(a"}, "the regular expression can't be used"),
        ({"regex": ""}, "regex must be a text that is not empty"),
        ({"regex": "x" * 70_000}, "regex must have at most 65,536 characters"),
        ({"regex": "\ud800"}, "not valid Unicode"),
        ({"json_schema": {"type": "nothing"}}, "the JSON Schema can't be used"),
        ({"json_schema": {"enum": ["漢"]}}, "can't write '漢' of the JSON Schema"),
        ({"json_schema": {"type": "string", "pattern": "(?=a)"}}, "the JSON Schema can't be used"),
        ({"json_schema": {"$ref": "https://example.org/x"}}, "the JSON Schema can't be used"),
        ({"json_schema": {"a": float("nan")}}, "json_schema must be a JSON object or its text"),
        ({"json_schema": "{"}, "json_schema is not JSON"),
        ({"json_schema": '{"enum": [NaN]}'}, "json_schema is not JSON: NaN and Infinity"),
        ({"json_schema": {"type": "text"}}, "the JSON Schema can't be used: Invalid type: text"),
        ({"regex": "a("}, "the regular expression can't be used: invalid regex"),
        ({"grammar": "start: A\nA: /(/"}, "the grammar can't be used: line 2, column 4: invalid"),
        ({"json_schema": "[]"}, "json_schema must be a JSON object"),
        ({"json_schema": '{"not":' * 200 + "{}" + "}" * 200}, "nested too deeply"),
        ({"grammar": "start: other"}, "the grammar can't be used"),
        ({"grammar": 'start: "漢"'}, "nothing that this model can write fits the grammar"),
        ({"copy_only": 1}, "copy_only must be true or false"),
        ({"copy_allow": ["a"]}, "copy_allow needs copy_only"),
        ({"copy_only": True, "copy_allow": ["漢"]}, "can't write '漢' of copy_allow"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_impossible_constraints_are_one_line(
    options: dict[str, Any], said: str, onnx: Model
) -> None:
    with pytest.raises(UsageError) as refused:
        onnx.generate(TEXTS[0], **options)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(UsageError):
        onnx.generate([], **options)  # before there are inputs


def test_a_dead_end_is_an_error(model: Model) -> None:
    grammar = 'start: "old " REST\nREST: "漢" | "字"\n'
    for search in ("greedy", "sampling", "beams"):
        if search == "beams" and not model.engine.supports_beams:
            continue
        with pytest.raises(ConstraintError) as ended:
            model.generate(TEXTS[0], grammar=grammar, **SEARCHES[search])
        assert "can't go on after 'old" in str(ended.value)
    stream = model.stream(TEXTS[0], grammar=grammar)
    with pytest.raises(ConstraintError):
        list(stream)


def test_a_branch_that_needs_other_characters_is_never_begun(onnx: Model) -> None:
    found = answers(
        onnx,
        [TEXTS[0]],
        regex="old 漢|old [a-z]{3}漢|old (?:river|town)",
        **SEARCHES["sampling"],
        num_return_sequences=20,
    )
    assert {answer.text for _, answer in found} <= {"old river", "old town"}


def test_other_texts_of_a_call_keep_their_answers(onnx: Model) -> None:
    """A dead end that only some answers run into."""
    grammar = 'start: "a" | "old " "漢" | "the"\n'
    texts = [f"{text} {number}" for number in range(10) for text in TEXTS]
    found = onnx.generate_each(texts, grammar=grammar, do_sample=True, temperature=9.0, top_k=0)
    assert any(isinstance(one, Generation) for one in found)
    assert any(isinstance(one, ConstraintError) for one in found)


def test_a_cut_answer_says_so(model: Model) -> None:
    answer = model.generate(TEXTS[0], json_schema=SCHEMA, max_new_tokens=6)
    assert answer.finish_reason == "length"
    with pytest.raises(ValueError, match="."):
        json.loads(answer.text)


def test_the_text_may_begin_with_a_space(onnx: Model) -> None:
    """T5's decoder drops one space; the constraint is about what is left."""
    for pattern in (" a", "a", "  b", " ?c"):
        text = onnx.generate(TEXTS[0], regex=pattern).text
        assert re.fullmatch(pattern, text)


@pytest.mark.parametrize(
    "options",
    [
        {"regex": "(?:(?:a{0,200}b){0,200}c){0,200}"},
        {"regex": "(?:.*a){60}.*"},
        {"regex": r"(?:\w{1,999}[a-z]){1,999}"},
        {"grammar": "start: a\n" + "a: a a | b\nb: b b a | /[a-z]/\n"},
        {"grammar": "start: A0\n" + "".join(f"A{n}: A{n + 1} A{n + 1}\n" for n in range(500))},
        {"grammar": "start: " + "(" * 9000 + '"a"' + ")" * 9000},
        {"regex": "(" * 9000 + "a" + ")" * 9000},
        {
            "json_schema": {
                "allOf": [
                    {"anyOf": [{"properties": {f"p{n}": {"type": "string"}}}, {"minProperties": n}]}
                    for n in range(40)
                ]
            }
        },
        {
            "json_schema": {
                "$defs": {f"d{n}": {"items": [{"$ref": f"#/$defs/d{n + 1}"}] * 8} for n in range(9)}
                | {"d9": {}},
                "$ref": "#/$defs/d0",
            }
        },
        {"json_schema": {"type": "object", "properties": {f"p{n}": {} for n in range(3000)}}},
    ],
    ids=lambda options: str(options)[:40],
)
def test_work_is_bounded(options: dict[str, Any], onnx: Model) -> None:
    """Answered or refused, within seconds."""
    started = time.monotonic()
    with contextlib.suppress(UsageError, ConstraintError):
        onnx.generate(TEXTS[0], max_new_tokens=8, **options)
    assert time.monotonic() - started < 10
