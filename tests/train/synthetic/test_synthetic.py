"""The generator of spoken questions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge.runtime.errors import UsageError
from edge.train.synthetic import UNSEEN_RATIO, generate, write_dataset

SIZES = {"train": 4000, "dev": 200, "test": 300}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, object]]]:
    return generate(7, SIZES)


def _words(rows: list[dict[str, object]]) -> set[str]:
    return set(re.findall(r"[a-z]+", " ".join(f"{r['input']} {r['target']}" for r in rows).lower()))


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    sizes = {"train": 300, "dev": 30, "test": 30}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_dataset(tmp_path / name, seed, sizes)
    for file in ("train.jsonl", "dev.jsonl", "test.jsonl"):
        texts = [(tmp_path / name / file).read_bytes() for name in "abc"]
        assert texts[0] == texts[1]
        assert texts[0] != texts[2]


def test_files_are_labeled_synthetic(tmp_path: Path) -> None:
    files = write_dataset(tmp_path, 0, {"train": 20, "dev": 5, "test": 5})
    assert sorted(files) == ["dev", "test", "train"]
    row = json.loads(files["train"].read_text().splitlines()[0])
    assert set(row) == {"id", "input", "target", "unseen", "origin"}
    assert row["origin"] == "synthetic"
    assert "synthetic" in (tmp_path / "README.md").read_text().lower()


def test_sizes_and_distinct_rows(splits: dict[str, list[dict[str, object]]]) -> None:
    assert {name: len(rows) for name, rows in splits.items()} == SIZES
    rows = [row for part in splits.values() for row in part]
    for column in ("input", "target", "id"):
        assert len({row[column] for row in rows}) == len(rows)


def test_no_text_is_in_two_splits(splits: dict[str, list[dict[str, object]]]) -> None:
    texts = {
        name: {row[column] for row in rows for column in ("input", "target")}
        for name, rows in splits.items()
    }
    assert not texts["train"] & texts["dev"]
    assert not texts["train"] & texts["test"]
    assert not texts["dev"] & texts["test"]


def test_unseen_rows_and_only_those_hold_a_word_new_to_training(
    splits: dict[str, list[dict[str, object]]],
) -> None:
    known = _words(splits["train"])
    assert not any(row["unseen"] for row in splits["train"])
    for row in splits["dev"] + splits["test"]:
        assert row["unseen"] == bool(_words([row]) - known)
    for name in ("dev", "test"):
        share = sum(bool(row["unseen"]) for row in splits[name]) / len(splits[name])
        assert share >= UNSEEN_RATIO


def test_the_question_can_be_had_from_what_was_said(
    splits: dict[str, list[dict[str, object]]],
) -> None:
    for row in splits["test"]:
        said, meant = str(row["input"]), str(row["target"])
        rest = iter(re.findall(r"\w+", said.lower()))
        assert all(word in rest for word in re.findall(r"\w+", meant.lower())), row
        assert meant.endswith("?") == said.endswith("?")
        assert meant[0].isupper() == said[0].isupper()


def test_most_rows_are_disfluent_and_few_are_not(
    splits: dict[str, list[dict[str, object]]],
) -> None:
    fluent = sum(row["input"] == row["target"] for row in splits["train"]) / SIZES["train"]
    assert 0.01 < fluent < 0.1


def test_held_out_rows_stay_when_training_rows_are_added() -> None:
    small = generate(5, {"train": 100, "dev": 40, "test": 40})
    large = generate(5, {"train": 400, "dev": 40, "test": 40})
    for name in ("dev", "test"):
        assert [row["input"] for row in small[name]] == [row["input"] for row in large[name]]


def test_more_rows_than_there_are_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge.train.synthetic import vocabulary as synthetic_words

    monkeypatch.setattr(synthetic_words, "FRAMES", (["Is", "it", "{adjective}", "?"],))
    with pytest.raises(UsageError, match="fewer rows"):
        generate(0, {"train": 400})
