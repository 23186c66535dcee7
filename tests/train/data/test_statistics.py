"""The command `edge data lengths`, and --long in training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.errors import DataError, UsageError
from edge.runtime.rows import Prompt, Row
from edge.train.data import make_pairs
from edge.train.data.overflow import fit_rows

WriteRows = Callable[[str, Iterable[object]], Path]
TEXT = "what is the bridge in Berlin by Anna from Rome with stones " * 6


@pytest.fixture(scope="module")
def tokenizer(small_tokenizer: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(small_tokenizer))


def test_the_report(
    edge: Callable[..., Any], write_rows: WriteRows, small_tokenizer: Path, tokenizer: Any
) -> None:
    rows = [
        {"input": f"what is {n}", "target": "a river " * (1 + n % 5), "task": "ab"[n % 2]}
        for n in range(100)
    ]
    long = {"input": "the old bridge " * 40, "target": "some houses", "task": "a"}
    unknown = {"input": "list all", "target": "漢字 stones", "task": "b"}
    write_rows("d/train.jsonl", [*rows, long, unknown, rows[7]])
    data = write_rows("d/dev.jsonl", [{**rows[3], "input": "What  is 3"}, long | {"input": "x"}])
    folder, out = data.parent, data.parent / "out"
    ended = edge(
        "data", "lengths", folder, "--model", small_tokenizer, "--prefix", "[{task}] {input}",
        "--histogram", out / "h.png", "--json", out / "r.json", "--tokens-per-step", 200,
        "--vocabulary", "keep",
    )  # fmt: skip
    assert ended.status == 0, ended
    report = json.loads((out / "r.json").read_text())
    train, dev = report["splits"]["train"], report["splits"]["dev"]
    sources = [f"[{row['task']}] {row['input']}" for row in (*rows, long, unknown, rows[7])]
    counts = sorted(len(ids) for ids in tokenizer(sources)["input_ids"])
    assert (train["rows"], train["duplicates"], train["unknown_targets"]) == (103, 1, 1)
    assert train["input"]["max"] == counts[-1] > 90
    assert train["input"]["p50"] == counts[51]
    assert train["input"]["p95"] == counts[97]
    assert report["recommended"][0] % 8 == 0
    assert 0 <= report["recommended"][0] - counts[97] < 8
    assert train["tasks"] == {"a": 51, "b": 52}
    assert (dev["leaked"], dev["duplicates"]) == (1, 0)
    effects = report["long"]
    touched = effects["truncate"]["touched"]
    assert touched >= 1
    assert effects["drop"]["rows"] == 103 - touched
    assert effects["chunk"]["rows"] > 103
    assert effects["drop"]["lost"] > effects["truncate"]["lost"] > effects["chunk"]["lost"]
    assert 0 <= report["padding"]["bucketed"] <= 0.05 < report["padding"]["fixed"]
    assert (out / "h.png").read_bytes().startswith(b"\x89PNG")
    assert "What  is 3" in ended.out
    assert re.search(r"recommended: --max-source-length \d+ --max-target-length \d+", ended.out)


def test_what_cannot_be_measured_is_one_line_and_leaves_nothing(
    assert_refused: Callable[..., str], write_rows: WriteRows, small_tokenizer: Path, tmp_path: Path
) -> None:
    data = write_rows("rows.jsonl", [{"input": "a", "target": "b"}, {"input": "a"}])
    report = tmp_path / "report.json"
    call = ("data", "lengths", data, "--json", report)
    assert "rows.jsonl:2: no column 'target'" in assert_refused(*call, "--model", small_tokenizer)
    assert "no such model folder" in assert_refused(*call, "--model", tmp_path / "nowhere")
    assert "lenghts" in assert_refused("data", "lenghts", data)
    assert not report.exists()


def _fit(tokenizer: Any, texts: list[str], policy: str, limit: int, prefix: str = "") -> list[Any]:
    rows = [Row(text, "some houses", "ab") for text in texts]
    pairs = make_pairs(rows, Prompt.parse(prefix))
    fitted, _ = fit_rows(
        pairs, tokenizer, policy=policy, max_source_length=limit, max_target_length=50
    )
    return fitted


def test_chunks_hold_the_whole_input_under_the_limit_each_with_the_prompt(tokenizer: Any) -> None:
    text = TEXT.strip()
    chunks = _fit(tokenizer, [text, "what is"], "chunk", 30, "fix this: {input} now")
    assert len(chunks) > 4
    inner = []
    for pair in chunks[:-1]:
        assert len(tokenizer(pair.source)["input_ids"]) <= 30
        assert pair.source.startswith("fix this: ")
        assert pair.source.endswith(" now")
        assert pair.target == "some houses"
        inner.append(pair.source[slice(*pair.span)])
    assert " ".join(inner) == text
    assert chunks[-1].source == "fix this: what is now"


def test_drop_and_truncate(tokenizer: Any) -> None:
    texts = ["what is", TEXT.strip()]
    assert [pair.source for pair in _fit(tokenizer, texts, "drop", 30)] == ["what is"]
    assert [pair.source for pair in _fit(tokenizer, texts, "truncate", 30)] == texts
    with pytest.raises(DataError, match=r"all 1 training rows.*--max-source-length"):
        _fit(tokenizer, texts[1:], "drop", 30)
    with pytest.raises(UsageError, match="alone fills --max-source-length 5"):
        _fit(tokenizer, texts, "chunk", 5, "the bridge in Berlin with stones: ")


def test_training_drops_long_rows_and_keeps_to_the_token_budget(
    write_rows: WriteRows, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    from edge.train.config import TrainConfig
    from edge.train.trainer import train

    rows = [{"input": f"what is {n} " * (1 + n % 6), "target": f"a {n % 10}"} for n in range(120)]
    data = write_rows("rows.jsonl", [*rows, {"input": "the river " * 60, "target": "a river"}])
    config = TrainConfig(
        data=data, output=tmp_path / "out", model=str(random_model()), dev_ratio=0.1, epochs=2,
        tokens_per_step=300, long="drop", max_source_length=60, max_target_length=16, threads=1,
    )  # fmt: skip
    notes: list[str] = []
    result = train(config, on_event=lambda e: notes.append(e.message) if e.kind == "note" else None)
    run: dict[str, Any] = result.record["run"]  # type: ignore[assignment]
    assert any(re.match(r"1 of 1\d\d .*--long drop", warning) for warning in result.warnings)
    assert any("padding" in note for note in notes)
    assert 0 <= run["padding_waste"] <= 0.05
    assert result.record["padding"]["fixed"] > 0.3  # type: ignore[index]
    assert run["tokens_per_second"] > 0
    assert run["epochs"] == 2.0
