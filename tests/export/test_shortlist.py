"""Shortlists: fewer rows of lm_head, the same answers if their tokens are on the list or copied."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.export.onnx.lm_head import ShortlistHead
from edge.export.parity import first_difference
from edge.export.publish import ExportOptions, Publisher, Target
from edge.export.reference import TorchReference
from edge.export.shortlist import Shortlist, ShortlistRequest, read_shortlist
from edge.export.source import SourceModel
from edge.runtime import Artifact, Model, load
from edge.runtime.engines import ENGINES
from edge.runtime.engines.onnx.engine import OnnxEngine
from edge.runtime.errors import ParityError
from edge.runtime.options import GenerationOptions
from edge.runtime.rows import Row, read_rows
from edge.runtime.text.tokenization import Tokenizer
from edge.train.metrics import exact_match, rouge_l

QUANTIZATIONS = ("float32", "int8")


@pytest.fixture(scope="module")
def few(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So few training rows that most dev answers have tokens that no training target has."""
    folder = tmp_path_factory.mktemp("few") / "rows"
    folder.mkdir()
    for name, count in (("train.jsonl", 40), ("dev.jsonl", 60)):
        lines = (dataset / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:count]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def dev(few: Path) -> list[Row]:
    return read_rows(few / "dev.jsonl")


@dataclass(frozen=True)
class Pair:
    """The same model with the full head and with a shortlist."""

    full: Model
    shortlist: Model
    ids: frozenset[int]

    def allowed(self, text: str) -> set[int]:
        [source], _ = self.shortlist.encode([text])
        return {*self.ids, *source}


@pytest.fixture(scope="module")
def shortlist_artifacts(
    trained: Path, few: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    request = ShortlistRequest(few, frequent=20)
    publisher = Publisher(SourceModel.open(trained), ExportOptions(shortlist=request))
    folder = tmp_path_factory.mktemp("shortlist")
    for name in QUANTIZATIONS:
        publisher.publish(Target("onnx", name), folder / name)
    return {name: folder / name for name in QUANTIZATIONS}


@pytest.fixture(scope="module", params=QUANTIZATIONS)
def pair(
    request: pytest.FixtureRequest, artifacts: Path, shortlist_artifacts: dict[str, Path]
) -> Iterator[Pair]:
    place = shortlist_artifacts[request.param]
    ids = read_shortlist(Artifact.open(place, verify=True))
    assert ids
    with load(artifacts / f"onnx-{request.param}") as full, load(place) as shortlist:
        yield Pair(full, shortlist, frozenset(ids))


def test_answers_are_the_full_heads_where_their_tokens_are_on_the_list_or_copied(
    pair: Pair, dev: list[Row]
) -> None:
    texts = [row.input for row in dev]
    copied = compared = ties = 0
    for text, full, shortlist in zip(
        texts, pair.full.generate(texts), pair.shortlist.generate(texts), strict=True
    ):
        allowed = pair.allowed(text)
        assert allowed.issuperset(shortlist.token_ids)
        if allowed.issuperset(full.token_ids):
            compared += 1
            copied += not pair.ids.issuperset(full.token_ids)
            if shortlist.token_ids != full.token_ids:
                ties += 1
                assert _gap(pair, text, full.token_ids, shortlist.token_ids) < 0.1
    assert compared > len(texts) // 2
    # With int8, activations are rounded for the full head's columns, not for the input's.
    assert ties <= (2 if pair.shortlist.artifact.manifest.quantization == "int8" else 0)
    assert copied > 5  # words that only the input brought in


def _gap(pair: Pair, text: str, *answers: tuple[int, ...]) -> float:
    """The difference of the full head's log-probabilities where two answers first differ."""
    position, one, other = first_difference(*([*ids, pair.full.tokenizer.eos] for ids in answers))
    [source], _ = pair.full.encode([text])
    scores = pair.full.score_tokens([source] * 2, [one, other])
    return abs(float(scores[0][position] - scores[1][position]))


def test_a_row_of_a_batch_does_not_see_the_other_rows_words(pair: Pair, dev: list[Row]) -> None:
    texts = [row.input for row in dev[:12]]
    together = pair.shortlist.generate(texts, batch_size=12)
    for text, answer in zip(texts, together, strict=True):
        assert answer.token_ids == pair.shortlist.generate(text).token_ids
        assert pair.allowed(text).issuperset(answer.token_ids)


def test_every_search_gives_greedys_answer_and_keeps_to_the_list(
    pair: Pair, dev: list[Row]
) -> None:
    model = pair.shortlist
    for row in dev[:20]:
        plain = model.generate(row.input)
        drafted = model.generate(row.input, prompt_lookup_num_tokens=6)
        assert drafted.token_ids == plain.token_ids
        assert drafted.steps is not None
        assert drafted.steps <= len(plain.token_ids) + 1
        assert drafted.score == pytest.approx(plain.score, abs=0.02)
        stream = model.stream(row.input)
        assert "".join(stream) == plain.text
        assert stream.result.token_ids == plain.token_ids
        assert stream.result.score == pytest.approx(plain.score, abs=0.02)
        beams = model.generate(row.input, num_beams=3, num_return_sequences=3)
        drawn = model.generate(row.input, do_sample=True, temperature=3.0, top_k=0, seed=1)
        for one in (beams, *beams.alternatives, drawn):
            assert pair.allowed(row.input).issuperset(one.token_ids)
            assert np.isfinite(one.score)
        assert beams.score >= plain.score - 1e-3


def test_scores_are_those_of_the_full_head(pair: Pair, dev: list[Row]) -> None:
    inputs, targets = ["what is the old bridge"], [dev[0].target or ""]
    [target] = pair.full.tokenizer.encode(targets)
    assert not pair.allowed(inputs[0]).issuperset(target)
    [full], [shortlist] = (model.score(inputs, targets) for model in (pair.full, pair.shortlist))
    np.testing.assert_array_equal(shortlist, full)
    assert np.isfinite(shortlist).all()


def test_the_manifest_says_what_the_list_is_and_costs(
    pair: Pair, few: Path, dev: list[Row]
) -> None:
    manifest = pair.shortlist.artifact.manifest
    facts = manifest.shortlist
    targets = [row.target or "" for row in read_rows(few / "train.jsonl")]
    seen = {token for ids in pair.full.tokenizer.encode(targets) for token in ids}
    assert pair.ids == seen | set(range(20))
    assert facts["size"] == len(pair.ids)
    assert facts["pieces"] == manifest.tokenizer.pieces
    assert (facts["data"], facts["held_out_data"]) == ("rows/train.jsonl", "rows/dev.jsonl")
    digest = hashlib.sha256((few / "train.jsonl").read_bytes()).hexdigest()
    assert facts["data_sha256"] == digest
    references = [row.target or "" for row in dev]
    found = {}
    for name, model in (("before", pair.full), ("after", pair.shortlist)):
        answers = model.generate([row.input for row in dev])
        texts = [answer.text for answer in answers]
        found[name] = [answer.token_ids for answer in answers]
        assert facts[name]["exact_match"] == pytest.approx(exact_match(texts, references), abs=1e-6)
        assert facts[name]["rouge_l"] == pytest.approx(rouge_l(texts, references), abs=1e-6)
    same = sum(a == b for a, b in zip(found["before"], found["after"], strict=True))
    assert (facts["greedy_identical"], facts["held_out_rows"]) == (same, len(dev))
    assert manifest.parity == pair.full.artifact.manifest.parity  # of the full head
    assert pair.full.artifact.manifest.shortlist == {}


ROWS = [[5, 9, 30, 31, 44, 7, 1], [12, 12, 1], [1], [60, 255, 62, 258, 0, 63, 66, 69, 70, 1]]


@pytest.mark.parametrize(
    ("quantization", "tied", "d_model"),
    [
        ("float32", False, 64),
        ("float32", True, 64),
        ("int8", False, 72),  # 72 is no multiple of any block
        ("int8_row", False, 72),
        ("int8_row", True, 64),
        ("int4_mixed", False, 64),
        ("int4", False, 72),
        ("int4", True, 64),
    ],
)
def test_each_kind_of_head_takes_the_best_of_the_allowed_ids(
    quantization: str,
    tied: bool,
    d_model: int,
    random_model: Callable[..., Path],
    few: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against the scoring graph's full logits, and transformers' choice in float32."""
    source = SourceModel.open(random_model(tied=tied, d_model=d_model, seed=5))
    pieces, eos = source.pieces, source.architecture.eos_token_id
    assert pieces < 255 < source.architecture.vocab_size
    ids = [eos, *range(3, pieces, 5)]
    monkeypatch.setattr(Publisher, "shortlist", _shortlist_of(ids, few, source))
    options = ExportOptions(mean_error=99.0)
    Publisher(source, options).publish(Target("onnx", quantization), tmp_path / "out")
    artifact = Artifact.open(tmp_path / "out")
    assert artifact.manifest.quantization == quantization
    engine = ENGINES.load("onnx")(artifact)
    assert isinstance(engine, OnnxEngine)
    reference = TorchReference(source, pieces=pieces, shortlist=ids)
    slack = 1e-3 if quantization == "float32" else 0.1
    for shortest, longest in ((0, 12), (12, 12), (0, 1)):
        chosen = GenerationOptions(min_new_tokens=shortest, max_new_tokens=longest)
        for row, [found] in zip(ROWS, engine.generate(ROWS, chosen), strict=True):
            tokens = [*found.token_ids, *([eos] if found.finish_reason == "eos" else [])]
            assert shortest <= len(tokens) <= longest
            allowed = sorted({*ids, *(token for token in row if token < pieces)})
            assert set(allowed).issuperset(tokens)
            logits = engine.start_scoring([row]).advance(np.array([[0, *tokens[:-1]]]))[0]
            total = 0.0
            for number, (token, row_logits) in enumerate(zip(tokens, logits, strict=True)):
                held = number + 1 < shortest or number < shortest
                places = [i for i in allowed if not (held and i == eos)]
                assert row_logits[token] >= row_logits[places].max() - slack
                total += row_logits[token] - np.logaddexp.reduce(row_logits[allowed])
            # The score is normalized over what may be chosen.
            assert found.score == pytest.approx(total / len(tokens), abs=slack)
            if quantization == "float32":
                [expected] = reference.generate([row], chosen)[0]
                assert found.token_ids == expected.token_ids


def _shortlist_of(ids: list[int], few: Path, source: SourceModel) -> Shortlist:
    """A shortlist evaluated on real rows, with ids spread over the vocabulary."""
    tokenizer = Tokenizer(source.folder / "tokenizer.json", eos=source.architecture.eos_token_id)
    shortlist = Shortlist(ShortlistRequest(few, frequent=0), tokenizer)
    shortlist.ids = ids
    return shortlist


def test_a_wrong_id_is_not_published(
    trained: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShortlistHead, "ids", lambda self, graph, columns: columns)
    options = ExportOptions(shortlist=ShortlistRequest(few, frequent=20))
    with pytest.raises(ParityError, match="the shortlist changes the answer to"):
        Publisher(SourceModel.open(trained), options).publish(
            Target("onnx", "int8"), tmp_path / "out"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_model_outside_of_the_tolerance_gets_no_shortlist(
    trained: Path, few: Path, tmp_path: Path
) -> None:
    options = ExportOptions(mean_error=1e-9, shortlist=ShortlistRequest(few, frequent=20))
    with pytest.raises(ParityError, match=r"onnx-int8 differs from its source"):
        Publisher(SourceModel.open(trained), options).publish(
            Target("onnx", "int8"), tmp_path / "out"
        )
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_figures_and_verifies(
    edge: Callable[..., Any], trained: Path, few: Path, tmp_path: Path
) -> None:
    """A single file: a tenth of its rows is held out."""
    rows = [json.loads(line) for line in (few / "dev.jsonl").read_text("utf-8").splitlines()]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"q": r["input"], "a": r["target"]}) + "\n" for r in rows))
    arguments = ("--shortlist", data, "--input-column", "q", "--target-column", "a")
    command = ("export", trained, "--format", "onnx", "--quantize", "none", "--output")
    ended = edge(*command, tmp_path / "out", *arguments, "--shortlist-frequent", 10)
    assert ended.status == 0, ended.err
    facts = Artifact.open(tmp_path / "out").manifest.shortlist
    assert facts["rows"] + facts["held_out_rows"] == len(rows)
    assert 0 < facts["held_out_rows"] < len(rows) // 3
    assert f"shortlist: {facts['size']:,} of {facts['pieces']:,} ids" in ended.out
    assert f"exact match {facts['before']['exact_match']:.1%} →" in ended.out
    assert f"{facts['size']} of {facts['pieces']} ids" in edge("info", tmp_path / "out").out
    verified = edge("verify", tmp_path / "out", "--source", trained)
    assert verified.status == 0, verified.err
    assert "15 of 15 greedy answers identical" in verified.out


def test_wrong_use_is_one_clear_line_and_leaves_nothing(
    assert_refused: Callable[..., str], trained: Path, few: Path, dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"

    def refused(data: Path, *more: object, format_name: str = "onnx") -> str:
        line = assert_refused(
            "export",
            trained,
            "--format",
            format_name,
            "--output",
            output,
            "--shortlist",
            data,
            *more,
        )
        assert not output.exists()
        return line

    for format_name in ("gguf", "all"):
        assert "--shortlist is for --format onnx" in refused(few, format_name=format_name)
    assert "no such file" in refused(tmp_path / "missing.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    assert "no rows" in refused(empty)
    assert "no train.jsonl" in refused(tmp_path)
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"input": "a question"}\n')
    assert "bare.jsonl:1" in refused(bare)
    assert "no column 'target'" in refused(bare)
    bare.write_text('{"input": "a question", "target": "an answer"}\n')
    assert "too few" in refused(bare)
    assert "saves next to nothing" in refused(few, "--shortlist-frequent", 100_000)
    line = assert_refused(
        "export", trained, "--format", "onnx", "--output", output, "--shortlist-frequent", 5
    )
    assert "--shortlist-frequent has no effect without --shortlist" in line
