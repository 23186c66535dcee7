"""`edge run --input`: one answer for each row of any kind of data, and for each line of text."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.export.publish import ExportOptions, Publisher, Target
from edge.export.source import SourceModel
from edge.runtime import load
from samples import save_letter_model

Edge = Callable[..., Any]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_letter_model(folder / "model")
    options = ExportOptions(generation={"max_new_tokens": 6})
    publisher = Publisher(SourceModel.open(folder / "model"), options)
    return publisher.publish(Target("onnx", "float32"), folder / "artifact").folder


@pytest.fixture(scope="module")
def answers(artifact: Path) -> dict[str, str]:
    with load(artifact) as model:
        return {text: model.generate(text).text for text in ("a", "b")}


@pytest.mark.parametrize("zipped", [False, True])
def test_a_blank_line_keeps_its_place(
    edge: Edge, artifact: Path, answers: dict[str, str], tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / ("f.txt.gz" if zipped else "f")
    path.write_bytes(gzip.compress(b"a\n\nb\n") if zipped else b"a\n\nb\n")
    expected = [answers["a"], "", answers["b"]]
    assert edge("run", artifact, "--input", path).out.split("\n")[:-1] == expected
    edge("run", artifact, "--input", path, "--output", tmp_path / "out")
    assert (tmp_path / "out").read_text(encoding="utf-8").split("\n")[:-1] == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.ndjson", '{"input": "a"}\n{"input": "b"}\n'),
        ("A.JSONL", '{"input": "a"}\n{"input": "b"}\n'),
        ("a.json", '[{"input": "a"}, {"input": "b"}]'),
        ("a.csv", "input,id\na,1\nb,2\n"),
        ("a.tsv", "question\tid\na\t1\nb\t2\n"),
    ],
)
def test_rows_are_read_by_kind(
    edge: Edge, artifact: Path, answers: dict[str, str], name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    edge("run", artifact, "--input", tmp_path / name, "--output", tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out").read_text("utf-8").splitlines()]
    assert [row["output"] for row in rows] == [answers["a"], answers["b"]]
    if "id" in text:
        assert [row["id"] for row in rows] == ["1", "2"]


def test_a_column_that_the_answers_would_replace_is_refused(
    edge: Edge,
    artifact: Path,
    answers: dict[str, str],
    tmp_path: Path,
    assert_refused: Callable[..., str],
) -> None:
    """Rows of Alpaca have a column "output", the expected answer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"input": "a"}, {"input": "b", "output": "expected"}]
    data, out = tmp_path / "a.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for call in (("--output", out), ()):
        line = assert_refused("run", artifact, "--input", data, *call)
        assert f"{data}:2: there is already a column 'output'" in line
        assert "--output-column" in line
    assert not out.exists()
    ended = edge("run", artifact, "--input", data, "--output", out, "--output-column", "answer")
    assert ended.status == 0, ended
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"input": "a", "answer": answers["a"]},
        {"input": "b", "output": "expected", "answer": answers["b"]},
    ]
    line = assert_refused(
        "run", artifact, "--input", data, "--output-column", "generation", "--jsonl"
    )
    assert "--output-column generation" in line
    data.write_text('{"input": "a", "generation": "x"}\n')
    assert "rename it" in assert_refused("run", artifact, "--input", data, "--jsonl")
    shards = tmp_path / "shards"
    shards.mkdir()
    pq.write_table(pa.table({"input": ["a"], "output": ["expected"]}), shards / "a.parquet")
    call = ("run", artifact, "--input", shards, "--output", tmp_path / "answers", "--workers", 1)
    assert "a.parquet: there is already a column 'output'" in assert_refused(*call, status=1)
    assert edge(*call, "--output-column", "answer", "--force").status == 0
    found = pq.read_table(tmp_path / "answers" / "a.parquet").to_pylist()
    assert found == [{"input": "a", "output": "expected", "answer": answers["a"]}]


def test_class_labels_of_a_shard_are_answered_by_name_and_kept(
    edge: Edge, artifact: Path, answers: dict[str, str], tmp_path: Path
) -> None:
    from datasets import ClassLabel, Dataset, Features, load_dataset

    features = Features({"input": ClassLabel(names=["a", "b"])})
    (tmp_path / "in").mkdir()
    Dataset.from_dict({"input": [0, 1]}, features).to_parquet(tmp_path / "in" / "a.parquet")
    out = tmp_path / "out"
    call = ("run", artifact, "--input", tmp_path / "in", "--output", out, "--workers", 1)
    assert edge(*call).status == 0
    cache = str(tmp_path / "cache")
    found = load_dataset("parquet", data_files=str(out / "a.parquet"), cache_dir=cache)["train"]
    assert found["output"] == [answers["a"], answers["b"]]
    assert found.features["input"] == features["input"]
    assert found["input"] == [0, 1]
