"""Bulk work compared, on a tiny shape: real engines, real texts; no timings."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.bench.engines.baselines.bulk_answers import answer_texts, padded
from edge.bench.engines.bulk import main, run_bulk
from edge.bench.engines.cache import Prepared
from edge.bench.engines.shapes import SHAPES, write_model
from edge.export.publish import Target

TINY = dataclasses.replace(
    SHAPES["flan-t5-small"],
    vocab_size=2100,
    d_model=64,
    d_kv=16,
    d_ff=96,
    num_heads=3,
    num_layers=2,
    num_decoder_layers=2,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    home = tmp_path_factory.mktemp("bulk")
    return Prepared(home, write_model(TINY, home / "model"))


def test_texts_are_sorted_and_batched_and_each_gets_its_answer(tiny: Prepared) -> None:
    """The longest row of each batch grows, and no row is lost; an echo shows the order."""
    widths: list[int] = []

    def echo(rows: list[list[int]], new_tokens: int) -> list[list[int]]:
        widths.append(max(map(len, rows)))
        return [row[:new_tokens] for row in rows]

    texts = ["b" * count for count in (9, 2, 7, 1, 4)]
    request = {"texts": texts, "batch": 2, "new_tokens": 512}
    found = answer_texts(echo, {**request, "tokenizer": str(tiny.model / "tokenizer.json")})
    assert widths == sorted(widths)
    assert len(widths) == 3
    assert found["characters"] == sum(map(len, texts))
    assert found["seconds"] > 0


def test_pieces_that_the_tokenizer_lacks_are_decoded_as_unknown(tiny: Prepared) -> None:
    """Random weights choose padding of the vocabulary, for which CTranslate2 has its own names."""
    tokenizer = str(tiny.model / "tokenizer.json")
    request = {"texts": ["a"], "batch": 1, "new_tokens": 1, "tokenizer": tokenizer}
    found = answer_texts(lambda rows, new_tokens: [["<unused_padding_1>"] for _ in rows], request)
    assert found["characters"] == 0  # <unk> is a special token


def test_padding_and_mask() -> None:
    assert padded([[5, 1], [7, 8, 1]]) == ([[5, 1, 0], [7, 8, 1]], [[1, 1, 0], [1, 1, 1]])


def test_every_engine_answers_all_rows_and_failures_are_named(
    tiny: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_BASELINES_PYTHON", str(tmp_path / "none"))
    texts = [f"who wrote {'the ' * (place % 5)}book {place}" for place in range(30)]
    baselines = ("ctranslate2-int8", "transformers-float32", "optimum-int8")
    speeds = run_bulk(
        tiny,
        texts,
        target=Target("onnx", "int4_mixed"),
        baselines=baselines,
        new_tokens=4,
        threads=2,
        chunk=12,
        batches=(4, 8),
    )
    assert [speed.name for speed in speeds] == ["edge onnx-int4_mixed", *baselines]
    for speed in speeds[:3]:
        assert not speed.failure
        assert speed.rows == 30
        assert speed.batch in (4, 8)
        assert speed.processes * speed.threads == 2
        assert 0 < speed.p5 <= speed.p95
    assert "not installed" in speeds[3].failure


def test_the_program_refuses_data_without_texts(tmp_path: Path) -> None:
    assert "flan-t5-large" in SHAPES
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"input": "", "target": ""}) + "\n")
    ended = CliRunner().invoke(main, ["flan-t5-small", "--data", str(data)])
    assert ended.exit_code == 2
    assert "Traceback" not in ended.output
    missing = CliRunner().invoke(main, ["flan-t5-small", "--data", str(tmp_path / "none.jsonl")])
    assert missing.exit_code == 2
