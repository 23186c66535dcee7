"""Columns of types that JSON lacks, and class labels: read and written as text."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.errors import DataError
from edge.runtime.rows import read_rows, to_json
from edge.train.augment.offline import augment
from edge.train.data.split import write_splits

OTHERS = {
    "when": datetime.datetime(2024, 5, 1, 12, 30),
    "day": datetime.date(2024, 5, 1),
    "price": decimal.Decimal("1.50"),
    "raw": b"\xff\x00",
    "score": math.nan,
    "nested": {"scores": [1.5, math.inf], "day": datetime.date(2024, 5, 1)},
}
WRITTEN = {
    "when": "2024-05-01 12:30:00",
    "day": "2024-05-01",
    "price": "1.50",
    "raw": base64.b64encode(b"\xff\x00").decode(),
    "score": None,
    "nested": {"scores": [1.5, None], "day": "2024-05-01"},
}


def _strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _parquet(path: Path, count: int = 1) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"input": f"when was the long bridge number {n} built by her?", "target": "x", **OTHERS}
        for n in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_values_without_a_json_type_become_text() -> None:
    assert _strict(to_json({"text": "ü", **OTHERS})) == {"text": "ü", **WRITTEN}
    assert to_json({"text": "ü"}) == '{"text": "ü"}'
    assert to_json({"text": "ü"}, ensure_ascii=True) == '{"text": "\\u00fc"}'
    assert to_json({"half": "\ud83d", "score": math.nan}) == r'{"half": "\ud83d", "score": null}'


def test_splits_and_augmented_rows_keep_all_columns(tmp_path: Path) -> None:
    data = _parquet(tmp_path / "rows.parquet", 40)
    write_splits(data, tmp_path / "splits", dev_ratio=0.5)
    augment(data, tmp_path / "more.jsonl", noise=True)
    for name in ("splits/train.jsonl", "splits/dev.jsonl", "more.jsonl"):
        lines = (tmp_path / name).read_text(encoding="utf-8").splitlines()
        assert lines
        for line in lines:
            row = _strict(line)
            assert {column: row[column] for column in WRITTEN} == WRITTEN


@pytest.mark.parametrize("kind", ["seconds", "years"])
def test_a_value_that_python_lacks_is_named(kind: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = {
        "seconds": pa.array([None, 2**62], pa.duration("s")),
        "years": pa.array([None, 2**55], pa.timestamp("ms")),
    }[kind]
    table = pa.table({"input": ["a", "b"], "target": ["x", "y"], "when": column})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet:2: column 'when' can't be read \("):
        read_rows(tmp_path / "a.parquet")


def _labeled(targets: list[int]) -> Any:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features(
        {
            "input": ClassLabel(names=["question", "order"]),
            "target": ClassLabel(names=["no", "yes"]),
            "id": Value("int64"),
        }
    )
    columns = {"input": [0, 1, 0], "target": targets, "id": [7, 8, 9]}
    return Dataset.from_dict(columns, features=features)


SAVERS: dict[str, Callable[[Any, Path], Any]] = {
    "folder": lambda rows, path: rows.save_to_disk(path),
    "rows.parquet": lambda rows, path: rows.to_parquet(path),
}


@pytest.mark.parametrize("name", SAVERS)
def test_class_labels_are_read_as_names(name: str, tmp_path: Path) -> None:
    SAVERS[name](_labeled([0, 1, 1]), tmp_path / name)
    rows = read_rows(tmp_path / name)
    assert [(row.input, row.target) for row in rows] == [
        ("question", "no"),
        ("order", "yes"),
        ("question", "yes"),
    ]
    assert [row.fields["id"] for row in rows] == [7, 8, 9]
    assert rows[0].fields["target"] == "no"


@pytest.mark.parametrize("name", SAVERS)
def test_a_row_without_a_label_is_named(name: str, tmp_path: Path) -> None:
    SAVERS[name](_labeled([0, -1, 1]), tmp_path / name)
    with pytest.raises(DataError, match=":2: column 'target' is null"):
        read_rows(tmp_path / name)


def test_a_label_without_a_name_is_refused_and_odd_metadata_ignored(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"input": ["a", "b"], "target": [0, 2]})
    for features, problem in (
        ({"target": {"_type": "ClassLabel", "names": ["no", "yes"]}}, "has 2 names"),
        ({"target": {"_type": "ClassLabel", "names": [1, 2]}}, None),
        ({"target": 5}, None),
        ([], None),
    ):
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
        if problem:
            with pytest.raises(DataError, match=rf":2: column 'target' is 2, but .*{problem}"):
                read_rows(tmp_path / "a.parquet")
        else:
            assert [row.target for row in read_rows(tmp_path / "a.parquet")] == ["0", "2"]
