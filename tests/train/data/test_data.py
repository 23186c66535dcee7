"""DATA: reading, errors with file and line, and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from edge.runtime.errors import DataError, UsageError
from edge.train.config import TrainConfig
from edge.train.data import Collator, Pair, load_splits, tokenize

WriteRows = Callable[[str, Iterable[object]], Path]
ROWS = [{"input": f"what uh is {n}?", "target": f"what is {n}?"} for n in range(200)]


def _config(data: Path, **changes: object) -> TrainConfig:
    return TrainConfig(data=data, output="unused", from_scratch="tiny", **changes)  # type: ignore[arg-type]


def test_a_folder_with_train_and_dev(write_rows: WriteRows) -> None:
    write_rows("d/train.jsonl", ROWS[:150])
    write_rows("d/valid.jsonl", ROWS[150:])
    folder = write_rows("d/test.jsonl", ROWS[:1]).parent
    splits = load_splits(_config(folder))
    assert (len(splits.train), len(splits.dev)) == (150, 50)
    assert splits.train[3] == Pair("what uh is 3?", "what is 3?")
    assert splits.bytes == sum((folder / f).stat().st_size for f in ("train.jsonl", "valid.jsonl"))
    assert not splits.warnings


def test_no_dev_split_says_how_to_make_one(write_rows: WriteRows) -> None:
    path = write_rows("rows.jsonl", ROWS)
    with pytest.raises(DataError, match=r"dev\.jsonl.*--dev-ratio 0\.1.*hash"):
        load_splits(_config(path))


def test_dev_ratio_chooses_the_same_rows_each_time(write_rows: WriteRows) -> None:
    path = write_rows("rows.jsonl", ROWS)
    first = load_splits(_config(path, dev_ratio=0.2))
    again = load_splits(_config(write_rows("other.jsonl", ROWS[::-1]), dev_ratio=0.2))
    assert set(first.dev) == set(again.dev)
    assert 20 <= len(first.dev) <= 60
    assert not set(first.dev) & set(first.train)
    assert len(first.dev) + len(first.train) == len(ROWS)


def test_dev_ratio_keeps_variants_of_an_input_together(write_rows: WriteRows) -> None:
    """A row that was made from a held-out one would give its answer away."""
    rows = [{"input": f"What is {n}?", "target": "x"} for n in range(60)]
    rows += [{"input": f"what  is {n}?", "target": "x"} for n in range(60)]
    rows += [
        {"input": f"uh what is {n}?", "target": "x", "augmented_from": f"What is {n}?"}
        for n in range(60)
    ]
    splits = load_splits(_config(write_rows("rows.jsonl", rows), dev_ratio=0.3))
    numbers = [
        {pair.source.removeprefix("uh").casefold().split()[-1] for pair in side}
        for side in (splits.train, splits.dev)
    ]
    assert not numbers[0] & numbers[1]
    assert len(splits.dev) == 3 * len(numbers[1])


def test_dev_ratio_that_leaves_a_side_empty(write_rows: WriteRows) -> None:
    path = write_rows("rows.jsonl", ROWS[:2])
    with pytest.raises(DataError, match="leaves no dev row"):
        load_splits(_config(path, dev_ratio=0.0001))


def test_columns_and_prompt(write_rows: WriteRows) -> None:
    rows = [{"q": f"list files {n}", "a": "ls", "where": "linux", "task": "sh"} for n in range(9)]
    write_rows("d/train.jsonl", rows)
    folder = write_rows("d/dev.jsonl", rows[:1]).parent
    config = _config(folder, input_column="q", target_column="a", prefix="[{task}/{where}] {input}")
    splits = load_splits(config)
    assert splits.train[1] == Pair("[sh/linux] list files 1", "ls")
    assert "1 inputs of the dev split are also in the training split" in splits.warnings[0]


def test_wrong_column_names_the_columns_there_are(write_rows: WriteRows) -> None:
    path = write_rows("rows.jsonl", [{"query": "a", "reply": "b"}])
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*'query', 'reply'"):
        load_splits(_config(path, dev_ratio=0.5))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ('{"input": "a", "target"', "not JSON"),
        ('{"input": "a", "target": [3]}', "must be text"),
        ('{"input": "a", "target": " "}', "is empty"),
        ('["a", "b"]', "must be a JSON object"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(write_rows: WriteRows, bad: str, says: str) -> None:
    path = write_rows("rows.jsonl", [*ROWS[:4], bad])
    with pytest.raises(DataError, match=rf"rows\.jsonl:5: .*{says}"):
        load_splits(_config(path, dev_ratio=0.5))


def test_nothing_to_read(write_rows: WriteRows, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        load_splits(_config(write_rows("empty.jsonl", []), dev_ratio=0.5))
    with pytest.raises(DataError, match="no such file"):
        load_splits(_config(tmp_path / "missing.jsonl"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"no train\.jsonl"):
        load_splits(_config(tmp_path / "folder"))


def test_prompt_with_a_column_that_is_missing(write_rows: WriteRows) -> None:
    path = write_rows("rows.jsonl", ROWS)
    with pytest.raises(UsageError, match="'task'"):
        load_splits(_config(path, dev_ratio=0.5, prefix="[{task}] "))


def test_unknown_characters_and_cut_rows_are_warned_of(small_tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(small_tokenizer))
    pairs = [Pair("what is", "漢字 the bridge"), Pair("what is " * 30, "a river")]
    rows, warnings = tokenize(
        pairs, tokenizer, max_source_length=20, max_target_length=20, name="training"
    )
    assert len(warnings) == 2
    assert warnings[0].startswith("1 of 2 training targets")
    assert "漢字 the bridge" in warnings[0]
    assert warnings[1].startswith("1 of 2 training inputs are longer than 20 tokens")
    assert len(rows[1]["input_ids"]) == 20
    assert rows[1]["input_ids"][-1] == tokenizer.eos_token_id


def test_padding_is_masked_in_inputs_and_labels(small_tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(small_tokenizer))
    pairs = [Pair("what", "a"), Pair("what is the bridge", "a river in Rome")]
    rows, _ = tokenize(pairs, tokenizer, max_source_length=50, max_target_length=50, name="dev")
    batch = Collator(tokenizer)(list(rows))
    for name, filler, real in (("input_ids", 0, "input_ids"), ("labels", -100, "labels")):
        for tensor, row in zip(batch[name].tolist(), rows, strict=True):
            assert tensor == row[real] + [filler] * (len(tensor) - len(row[real]))
    assert batch["attention_mask"].sum(1).tolist() == [len(row["input_ids"]) for row in rows]
