"""Reading rows: every complaint says file and line, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.runtime.errors import DataError, UsageError
from edge.runtime.rows import MAX_LINE_BYTES, Columns, Prompt, iter_lines, read_rows, split_file


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"".join((x if isinstance(x, bytes) else x.encode()) + b"\n" for x in lines))
    return path


def test_reads_rows_with_all_their_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"input": "x", "target": "y", "task": "t", "id": 7}', "")
    [row] = read_rows(path)
    assert (row.input, row.target, row.task, row.line) == ("x", "y", "t", 1)
    assert row.fields["id"] == 7


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"input": "x", "target": "y"}')
    assert read_rows(path)[0].input == "x"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"input": "x"', "not JSON"),
        ("[1, 2]", "must be a JSON object"),
        ('{"input": 5, "target": "y"}', "column 'input' must be text, not int"),
        ('{"input": "x", "target": "  "}', "column 'target' is empty"),
        ('{"input": "x", "target": "y", "task": 3}', "column 'task' must be text"),
        (b'{"input": "\xff", "target": "y"}', "not UTF-8"),
        ("[" * 100_000, "not JSON: nested too deeply"),
    ],
)
def test_malformed_rows_name_file_and_line(
    tmp_path: Path, line: str | bytes, complaint: str
) -> None:
    path = write(tmp_path / "a.jsonl", '{"input": "x", "target": "y"}', line)
    with pytest.raises(DataError, match=r"a\.jsonl:2: ") as caught:
        read_rows(path)
    assert complaint in str(caught.value)
    assert caught.value.line == 2


def test_a_wrong_column_name_lists_the_columns_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"query": "x", "reply": "y"}')
    with pytest.raises(DataError, match=r"no column 'input'.*'query', 'reply'.*--input-column"):
        read_rows(path)
    [row] = read_rows(path, Columns(input="query", target="reply"))
    assert (row.input, row.target) == ("x", "y")


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no rows"):
        read_rows(write(tmp_path / "empty.jsonl", "", "  "))
    with pytest.raises(DataError, match="is a folder"):
        read_rows(tmp_path)


def test_an_endless_line_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"input": "x" * (MAX_LINE_BYTES + 1)}))
    with pytest.raises(DataError, match=r":1: the line is longer"):
        read_rows(path)


def test_lines_of_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\r", "", "zwei ü")
    assert list(iter_lines(path)) == ["one", "", "zwei ü"]


def test_split_files_are_found_under_other_tools_names(tmp_path: Path) -> None:
    assert split_file(tmp_path, "dev") is None
    write(tmp_path / "validation.jsonl", "{}")
    assert split_file(tmp_path, "dev") == tmp_path / "validation.jsonl"


def test_prompts_fill_in_fields_and_nothing_else() -> None:
    prompt = Prompt.parse("[{task}] {input}")
    assert prompt.fields == ("task",)
    assert prompt.apply("{task} $HOME", {"task": "{input}"}) == "[{input}] {task} $HOME"
    with pytest.raises(UsageError, match="needs the field 'task'"):
        prompt.apply("x")
    assert Prompt.parse("rewrite: ").apply("x") == "rewrite: x"
    # No attribute access, no format specification: such a thing is plain text.
    assert Prompt.parse("{input.__class__} {input}").apply("x") == "{input.__class__} x"
