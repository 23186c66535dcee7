"""Kinds of data: the same rows from every kind, and one complaint with file and row in each."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.errors import DataError
from edge.runtime.rows import (
    MAX_LINE_BYTES,
    Columns,
    data_sha256,
    holds_splits,
    iter_rows_with_errors,
    kind_of,
    read_rows,
    split_file,
    train_file,
)
from edge.runtime.rows import columns as columns_module

ROWS = [
    {"input": 'says "hi",\nthen; goes', "target": "ü\ttab", "task": "a"},
    {"input": "second", "target": "other", "task": "b"},
]


def json_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def json_array(path: Path, rows: list[Any]) -> None:
    path.write_text("\ufeff" + json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")


def table(delimiter: str) -> Callable[[Path, list[Any]], None]:
    def write(path: Path, rows: list[Any]) -> None:
        with path.open("w", encoding="utf-8-sig", newline="") as handle:
            writer = csv.DictWriter(handle, [*rows[0]], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)

    return write


def parquet(path: Path, rows: list[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def saved(path: Path, rows: list[Any]) -> None:
    from datasets import Dataset

    Dataset.from_list(rows).save_to_disk(path)


def zipped(write: Callable[[Path, list[Any]], None]) -> Callable[[Path, list[Any]], None]:
    def write_zipped(path: Path, rows: list[Any]) -> None:
        write(path, rows)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return write_zipped


WRITERS: dict[str, Callable[[Path, list[Any]], None]] = {
    "a.jsonl": json_lines,
    "a.ndjson": json_lines,
    "A.JSONL": json_lines,
    "a.jsonl.gz": zipped(json_lines),
    "lines.json": json_lines,
    "array.json": json_array,
    "array.JSON.gz": zipped(json_array),
    "a.csv": table(","),
    "semicolons.csv": table(";"),
    "a.csv.gz": zipped(table(",")),
    "a.tsv": table("\t"),
    "a.parquet": parquet,
    "folder": saved,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, ROWS)
    found = read_rows(tmp_path / name)
    assert [dict(row.fields) for row in found] == ROWS
    assert [(row.input, row.target, row.task) for row in found] == [
        (row["input"], row["target"], row["task"]) for row in ROWS
    ]
    assert not holds_splits(tmp_path / name)
    assert len(data_sha256(tmp_path / name)) == 64


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.jsonl", 2),
        ("a.jsonl.gz", 2),
        ("array.json", 7),
        ("a.csv", 4),
        ("a.parquet", 2),
        ("folder", 2),
    ],
)
def test_every_complaint_names_file_and_row(name: str, line: int, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, [ROWS[0], ROWS[1] | {"target": ""}])
    with pytest.raises(DataError, match="column 'target' is empty") as caught:
        read_rows(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}:{line}: ")


@pytest.mark.parametrize("name", ["a.jsonl", "array.json", "a.parquet", "folder"])
@pytest.mark.parametrize(
    ("value", "problem"), [(None, "is null"), (float("nan"), "is nan"), (float("inf"), "is inf")]
)
def test_null_and_nan_are_refused_by_row(
    name: str, value: object, problem: str, tmp_path: Path
) -> None:
    rows = [{"input": "a", "target": 2.5}, {"input": "b", "target": value}]
    WRITERS[name](tmp_path / name, rows)
    with pytest.raises(DataError, match=f"column 'target' {problem}"):
        read_rows(tmp_path / name)


def test_numbers_as_targets_become_text_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns_module, "_said", set())
    json_lines(tmp_path / "a.jsonl", [{"input": "a", "target": 7}, {"input": "b", "target": 2.5}])
    with caplog.at_level(logging.WARNING):
        assert [row.target for row in read_rows(tmp_path / "a.jsonl")] == ["7", "2.5"]
    [record] = caplog.records
    assert "column 'target' holds numbers, which are read as text" in record.message


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("question", "answer"),
        ("source", "target"),
        ("text", "summary"),
        ("instruction", "output"),
        ("src", "tgt"),
    ],
)
def test_columns_are_guessed_aloud(
    source: str,
    target: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(columns_module, "_said", set())
    json_lines(tmp_path / "a.jsonl", [{"id": 1, source: "x", target: "y"}])
    with caplog.at_level(logging.WARNING):
        [row] = read_rows(tmp_path / "a.jsonl")
    assert (row.input, row.target) == ("x", "y")
    assert (row.columns.input, row.columns.target) == (source, target)
    assert f"input is the column {source!r}" in caplog.text
    assert "--input-column" in caplog.text
    [row] = read_rows(tmp_path / "a.jsonl", need_target=False)
    assert row.input == "x"


@pytest.mark.parametrize(
    "row",
    [
        {"question": "x", "answer": "y", "text": "z", "summary": "w"},
        {"instruction": "x", "input": "y", "output": "z"},
        {"question": "x", "summary": "y"},
        {"a": "x", "b": "y"},
    ],
)
def test_columns_are_not_guessed_where_two_fit(row: dict[str, str], tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", [row])
    with pytest.raises(DataError, match=r"no column '(input|target)'; this row has: '"):
        read_rows(tmp_path / "a.jsonl")


def test_given_columns_are_never_replaced(tmp_path: Path) -> None:
    json_lines(tmp_path / "a.jsonl", [{"question": "x", "answer": "y"}])
    with pytest.raises(DataError, match="no column 'frage'"):
        read_rows(tmp_path / "a.jsonl", Columns("frage", "answer"))
    [row] = read_rows(tmp_path / "a.jsonl", Columns("answer", "question"))
    assert (row.input, row.target) == ("y", "x")


@pytest.mark.parametrize("name", ["a.jsonl", "array.json"])
@pytest.mark.parametrize("column", ["input", "target", "other"])
def test_half_a_surrogate_pair_is_refused(name: str, column: str, tmp_path: Path) -> None:
    row = {"input": "a", "target": "b", "other": "c"} | {column: "hello \ud83d"}
    (tmp_path / name).write_text(
        json.dumps([row]) if name.startswith("array") else json.dumps(row), encoding="utf-8"
    )
    with pytest.raises(DataError, match=r":1: not valid Unicode"):
        read_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"input": "a", "target": "b"},\n 5]', ":2: a row must be a JSON object"),
        ('[{"input": "a", "target": "b"}\n {}]', ":2: not a JSON array: expected ']', found '{'"),
        ('[{"input": "a", "target": "b"}', "expected ']', found the end"),
        ('[{"input": "a", "target": "b"}] x', "text after the end"),
        ('[\n{"input": "a', ":2: not a JSON array: Unterminated string"),
        ("[" * 100_000, "nested too deeply"),
        ('{\n  "data": []\n}', "a .json file is an array of rows, or has a row in each line"),
    ],
)
def test_malformed_arrays(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / "a.json")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("input,target\na,b,c\n", ":2: 3 values, but the header has 2 columns"),
        ('input,target\n"a"x,b\n', ":2: malformed table"),
        ("input,input\na,b\n", ":1: two columns have the same name"),
        (",\na,b\n", ":1: the header names no columns"),
        ('input,target\na,"b\n', "malformed table"),
    ],
)
def test_malformed_tables(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / "a.csv")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"input": "x", "input": "a", "target": "b"}'),
        ("a.json", '[{"input": "x", "input": "a", "target": "b"}]'),
    ],
)
def test_a_name_that_occurs_twice_is_refused(name: str, text: str, tmp_path: Path) -> None:
    """Python's parser would keep the last value."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r":1: two values are named 'input'"):
        read_rows(tmp_path / name)


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [pa.array([text]) for text in "abc"]
    pq.write_table(pa.table(columns, names=["input", "input", "target"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns have the same name"):
        read_rows(tmp_path / "a.parquet")


def test_an_unknown_suffix_lists_the_kinds(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"PK\3\4\n")
    assert kind_of(tmp_path / "rows.xlsx") is None
    with pytest.raises(DataError, match=r"JSON lines \(\.jsonl, \.ndjson\), JSON \(\.json\), CSV"):
        read_rows(tmp_path / "rows.xlsx")


@pytest.mark.parametrize("name", ["a.csv", "array.json", "a.jsonl"])
def test_a_giant_row_is_refused_before_it_fills_the_memory(name: str, tmp_path: Path) -> None:
    rows = [ROWS[1] | {"input": "x" * (MAX_LINE_BYTES + 1)}]
    WRITERS[name](tmp_path / name, rows)
    with pytest.raises(DataError, match="longer than 8 MiB"):
        read_rows(tmp_path / name)


def test_a_gzip_bomb_and_a_broken_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.runtime.rows.lines._ALWAYS_ALLOWED", 1 << 20)
    row = (json.dumps(ROWS[1]) + "\n").encode()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(row * (32 << 10)))
    with pytest.raises(DataError, match="expands to more than 100 times its size"):
        read_rows(path)
    path.write_bytes(gzip.compress(row * 100)[:-20])
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_rows(path)
    path.write_bytes(row)
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_rows(path)


@pytest.mark.parametrize("name", ["train.csv", "train.NDJSON", "train.jsonl.gz", "Train.parquet"])
def test_splits_of_a_folder_may_be_of_any_kind(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "train.md").write_bytes(b"")
    assert split_file(tmp_path, "train") == tmp_path / name
    (tmp_path / "train.tsv").write_bytes(b"")
    with pytest.raises(DataError, match="are both the train split"):
        split_file(tmp_path, "train")
    (tmp_path / "dev.jsonl").write_bytes(b"")
    assert split_file(tmp_path, "dev") == tmp_path / "dev.jsonl"
    (tmp_path / "val.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"dev\.jsonl and val\.csv are both the dev split"):
        split_file(tmp_path, "dev")


def test_splits_of_a_saved_data_set(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    parts = {"train": Dataset.from_list(ROWS), "validation": Dataset.from_list(ROWS[:1])}
    DatasetDict(parts).save_to_disk(tmp_path / "data")
    assert holds_splits(tmp_path / "data")
    dev = split_file(tmp_path / "data", "dev")
    assert dev == tmp_path / "data" / "validation"
    assert len(read_rows(dev)) == 1


def test_the_rows_to_learn_from(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert train_file(file) == file  # whether it exists is for the reader to say
    json_lines(tmp_path / "dev.jsonl", ROWS)
    with pytest.raises(DataError, match="no train.jsonl"):
        train_file(tmp_path)
    json_lines(tmp_path / "train.jsonl", ROWS)
    assert train_file(tmp_path) == tmp_path / "train.jsonl"


def test_malformed_rows_of_a_table_are_yielded(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("input,id\na,1\n,2\nb\n", encoding="utf-8")
    good, empty, short = iter_rows_with_errors(tmp_path / "a.csv")
    assert good.input == "a"  # type: ignore[union-attr]
    assert "is empty" in str(empty.error)  # type: ignore[union-attr]
    assert "1 values" in str(short.error)  # type: ignore[union-attr]


def test_plain_kinds_need_no_heavy_library(tmp_path: Path) -> None:
    for name in ("a.jsonl", "array.json", "a.csv", "a.tsv"):
        WRITERS[name](tmp_path / name, ROWS)
    code = (
        "import sys; from pathlib import Path; from edge.runtime.rows import read_rows;"
        f"n = [len(read_rows(p)) for p in Path({str(tmp_path)!r}).iterdir()];"
        "print(n, sorted({'datasets', 'pyarrow', 'pandas', 'torch'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[2, 2, 2, 2] []"


@pytest.mark.parametrize(
    "text",
    [
        "input\ttarget\na, b\tc; d\n",
        "input|target\na, b|c; d\n",
        "sep=;\ninput;target\na, b;c, d\n",
    ],
)
def test_separators_of_csv_files_are_found(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8-sig")
    [row] = read_rows(path)
    assert row.input == "a, b"
    assert row.target == text.strip()[-4:]
    path.write_text(text + "one cell\n", encoding="utf-8-sig")
    line = 4 if text.startswith("sep") else 3
    with pytest.raises(DataError, match=f":{line}: 1 values"):
        read_rows(path)


ROW = '{"input": "a", "target": "b"}'


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"input,target\ra,b\r", "the lines end with CR alone"),
        ("a.jsonl", (ROW + "\n").encode("utf-16"), "is UTF-16, not UTF-8. Convert it: iconv"),
        ("a.csv", "input,target\na,b\n".encode("utf-16-le"), "is UTF-16LE, not UTF-8"),
        ("a.csv", "input,target\na,b\n".encode("utf-16-be"), "is UTF-16BE, not UTF-8"),
        ("a.json", f"[{ROW}]".encode("utf-32"), "is UTF-32, not UTF-8"),
        ("a.jsonl.gz", gzip.compress(ROW.encode("utf-16"), mtime=0), "is UTF-16, not UTF-8"),
        (
            "a.jsonl",
            gzip.compress(ROW.encode(), mtime=0),
            "is a gzip file; its name must end in .gz",
        ),
        ("a.jsonl", f"[{ROW}]".encode(), "not list (an array of rows is read from a file named"),
        ("a.jsonl", f"[\n{ROW}\n]".encode(), "an array of rows is read from a file named .json"),
        ("a.jsonl", json.dumps(ROWS[0], indent=1).encode(), "each row must be on a line of"),
    ],
)
def test_files_of_another_kind_than_their_name_says(
    name: str, content: bytes, problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / name)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_only_shard_of_a_split_is_the_split(tmp_path: Path) -> None:
    json_lines(tmp_path / "train-00000-of-00001.jsonl", ROWS)
    assert split_file(tmp_path, "train") == tmp_path / "train-00000-of-00001.jsonl"
    (tmp_path / "dev-00000-of-00002.jsonl").touch()
    assert split_file(tmp_path, "dev") is None


def test_a_missing_train_split_says_what_is_there(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    DatasetDict({"en": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    for name in (
        "shards/train-00000-of-00002.parquet",
        "shards/train-00001-of-00002.parquet",
        "inner/data/train.jsonl",
        "none/rows.jsonl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for folder, problem in (
        ("saved", f"no train split, only en; give one: {tmp_path / 'saved' / 'en'}"),
        ("shards", "the train split is in 2 files, such as train-00000-of-00002.parquet"),
        ("inner", f"no train split here, but in data; give {tmp_path / 'inner' / 'data'}"),
        ("none", "the folder has no train.jsonl (or .csv, …)"),
    ):
        with pytest.raises(DataError) as caught:
            train_file(tmp_path / folder)
        assert str(caught.value).startswith(f"{tmp_path / folder}: {problem}")
