"""The commands `edge data augment` and `edge data split`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.errors import DataError
from edge.runtime.rows import read_rows
from edge.train.augment.noise import NoiseAugmenter
from edge.train.augment.offline import Limits, augment
from edge.train.data.split import assign_splits
from edge.train.metrics import rouge_l_each

WriteRows = Callable[[str, Iterable[object]], Path]
Row = dict[str, Any]
QUESTIONS = [
    {
        "id": f"q{n}",
        "input": f"When was the old bridge number {n} of Verona built by Anna?",
        "target": f"build year {n}",
        "task": ("bridges", "rivers")[n % 2],
    }
    for n in range(200)
]


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_noisy_inputs_contain_the_words_of_the_text_in_order(
    edge: Callable[..., Any], write_rows: WriteRows
) -> None:
    data = write_rows("rows.jsonl", QUESTIONS)
    out, again, other = (data.parent / f"{name}.jsonl" for name in ("out", "again", "other"))
    ended = edge("data", "augment", data, "--noise", "--per-row", 3, "--output", out)
    assert ended.status == 0, ended
    rows = _read(out)
    new = [row for row in rows if row["origin"] == "noise"]
    assert [row for row in rows if row["origin"] == "original"] == [
        {**row, "origin": "original"} for row in QUESTIONS
    ]
    assert f"{len(new)} by noise" in ended.out
    assert f"duplicate {600 - len(new)}," in ended.out
    assert 500 < len(new) <= 600
    assert len({row["input"].casefold() for row in rows}) == len(rows)
    targets = {row["input"]: row["target"] for row in QUESTIONS}
    for row in new:
        parent = row["augmented_from"]
        assert row["target"] == targets[parent]
        assert row["task"] in ("bridges", "rivers")
        assert "id" not in row
        said = iter(row["input"].casefold().split())
        assert all(word in said for word in parent.casefold().split()), row["input"]
        assert len(row["input"].split()) > len(parent.split())
    assert re.search(r"\b(uh|um|er|well)\b", " ".join(row["input"] for row in new))
    edge("data", "augment", data, "--noise", "--per-row", 3, "--output", again)
    assert again.read_bytes() == out.read_bytes()
    edge("data", "augment", data, "--noise", "--per-row", 3, "--output", other, "--seed", 1)
    assert other.read_bytes() != out.read_bytes()


def test_noise_leaves_short_texts_alone() -> None:
    noise = NoiseAugmenter(["one two three four"], seed=0)
    assert noise.augment("who knows") is None
    assert noise.augment("who knows it")


@pytest.mark.parametrize("kind", ["folder", "artifact"])
def test_paraphrases_of_a_model_are_filtered(
    edge: Callable[..., Any],
    dataset: Path,
    trained: Path,
    artifacts: Path,
    tmp_path: Path,
    kind: str,
) -> None:
    model = trained if kind == "folder" else artifacts / "onnx-int8"
    out = tmp_path / "out.jsonl"
    call = (
        "data", "augment", dataset, "--with", model, "--limit", 40, "--per-row", 3, "--only-new",
        "--min-rouge", 0.4, "--max-rouge", 0.9, "--temperature", 1.2, "--threads", 1,
    )  # fmt: skip
    ended = edge(*call, "--output", out)
    assert ended.status == 0, ended
    rows = _read(out)
    known = {row["input"]: row["target"] for row in _read(dataset / "train.jsonl")}
    held = {row["input"] for name in ("dev", "test") for row in _read(dataset / f"{name}.jsonl")}
    assert rows
    for row in rows:
        assert row["origin"] == "paraphrase"
        assert row["target"] == known[row["augmented_from"]]
        assert row["input"] not in known
        assert row["input"] not in held
        [score] = rouge_l_each([row["input"]], [row["augmented_from"]])
        assert 0.4 <= score < 0.9
        words = len(row["input"].split()) / len(row["augmented_from"].split())
        assert 0.5 <= words <= 2
    left = {name: int(count) for name, count in re.findall(r"([a-z ]+) (\d+)", ended.out)}
    rejected = ("empty", "length", "too similar", "too far", "duplicate", "held out")
    counts = {
        name: next(count for key, count in left.items() if key.strip().endswith(name))
        for name in rejected
    }
    assert sum(counts.values()) + len(rows) == 40 * 3
    assert counts["too similar"] + counts["too far"] > 0
    again = tmp_path / "again.jsonl"
    edge(*call, "--output", again)
    assert again.read_bytes() == out.read_bytes()


def test_each_filter_takes_what_it_is_for(write_rows: WriteRows, tmp_path: Path) -> None:
    first = {"input": "who built the old bridge", "target": "a"}
    second = {"input": "where is the river", "target": "b"}
    write_rows("d/train.jsonl", [first, second])
    data = write_rows("d/dev.jsonl", [{"input": "who made the old bridge", "target": "a"}]).parent
    answers = [
        ["Who built  the old bridge", "who made the old bridge", "name three large green birds"],
        ["where is the river near the river near the river", " ", "where is a river"],
    ]

    def paraphrase(texts: Any, fields: Any, seed: int) -> list[list[str]]:
        return answers

    out = tmp_path / "out.jsonl"
    result = augment(data, out, paraphrase=paraphrase, limits=Limits(), only_new=True)
    assert result.rejected == Counter(
        {"too similar": 1, "held out": 1, "too far": 1, "length": 1, "empty": 1, "too long": 0}
    )
    assert [row["input"] for row in _read(out)] == ["where is a river"]


def test_what_cannot_be_augmented_is_one_line_and_leaves_nothing(
    assert_refused: Callable[..., str], write_rows: WriteRows, tmp_path: Path
) -> None:
    data, out = write_rows("rows.jsonl", [*QUESTIONS[:20], "no json"]), tmp_path / "out.jsonl"
    call = ("data", "augment", data, "--output", out)
    assert "--noise" in assert_refused(*call)
    assert "rows.jsonl:21: not JSON" in assert_refused(*call, "--noise")
    assert "no such model folder" in assert_refused(*call, "--with", tmp_path / "nowhere")
    bounds = ("--min-rouge", 0.9, "--max-rouge", 0.5)
    assert "--min-rouge 0.9" in assert_refused(*call, "--noise", *bounds)
    out.write_text("mine")
    assert "--force" in assert_refused(*call, "--noise")
    assert out.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_split_is_the_same_for_the_same_rows(
    edge: Callable[..., Any], write_rows: WriteRows, tmp_path: Path
) -> None:
    data = write_rows("rows.jsonl", QUESTIONS)
    more = write_rows("more.jsonl", [*QUESTIONS[::-1], {"input": "a new one", "target": "x"}])
    sides = []
    for source in (data, more):
        out = tmp_path / source.stem
        ended = edge("data", "split", source, "--output", out, "--test-ratio", 0.2)
        assert ended.status == 0, ended
        files = ("train", "dev", "test")
        assert sorted(path.stem for path in out.iterdir()) == sorted(files)
        rows = {name: _read(out / f"{name}.jsonl") for name in files}
        assert sum(map(len, rows.values())) == len(_read(source))
        sides.append({row["input"]: name for name in files for row in rows[name]})
    sides[1].pop("a new one")
    assert sides[0] == sides[1]
    counts = Counter(sides[0].values())
    assert 8 <= counts["dev"] <= 36
    assert 22 <= counts["test"] <= 60


def test_groups_and_augmented_rows_stay_together(
    edge: Callable[..., Any], write_rows: WriteRows, tmp_path: Path
) -> None:
    rows = [{**row, "tool": f"t{n % 25}"} for n, row in enumerate(QUESTIONS)]
    data, out = write_rows("rows.jsonl", rows), tmp_path / "out"
    ratio = ("--dev-ratio", 0.3)
    assert edge("data", "split", data, "--output", out, "--group-by", "tool", *ratio).status == 0
    assert len(_read(out / "dev.jsonl")) in range(8, 160)
    tools = [{row["tool"] for row in _read(out / f"{name}.jsonl")} for name in ("train", "dev")]
    assert not tools[0] & tools[1]
    assert len(tools[0] | tools[1]) == 25
    augmented = tmp_path / "augmented.jsonl"
    edge("data", "augment", data, "--noise", "--per-row", 2, "--output", augmented)
    assert edge("data", "split", augmented, "--output", out, "--force").status == 0
    parents = [
        {row.get("augmented_from", row["input"]) for row in _read(out / f"{name}.jsonl")}
        for name in ("train", "dev")
    ]
    assert parents[1]
    assert not parents[0] & parents[1]


def test_leakage_and_other_mistakes_are_refused(
    assert_refused: Callable[..., str], write_rows: WriteRows, tmp_path: Path
) -> None:
    rows = [{"input": f"what is {n}", "target": "x", "tool": f"t{n}"} for n in range(60)]
    twin = {"input": "What  is 3", "target": "x", "tool": "t59"}
    data, out = write_rows("rows.jsonl", [*rows, twin]), tmp_path / "out"
    call = ("data", "split", data, "--output", out)
    line = assert_refused(*call, "--group-by", "tool", "--dev-ratio", 0.5)
    assert re.search(r"rows\.jsonl:61: this input.* is also in line 4", line)
    assert "'nope'" in assert_refused(*call, "--group-by", "nope")
    assert "--dev-ratio 1.5" in assert_refused(*call, "--dev-ratio", 1.5)
    assert "add up" in assert_refused(*call, "--dev-ratio", 0.6, "--test-ratio", 0.6)
    assert "no dev split" in assert_refused(*call, "--dev-ratio", 0.0001)
    assert not out.exists()
    with pytest.raises(DataError, match="no dev"):
        assign_splits(read_rows(data)[:1], {"dev": 0.0001}, path=data)
