"""Figures from artifacts alone: right, complete, and honest about what was cut."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bench.accuracy import measure_accuracy
from edge.bench.latency import measure_latency, spread_rows
from edge.bench.report.document import check_document
from edge.bench.runner import run_bench
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.artifact import sha256_of
from edge.runtime.errors import DataError, UsageError
from edge.runtime.rows import Row, read_rows


def test_accuracy_is_what_transformers_finds(trained: Path, artifacts: Path, dataset: Path) -> None:
    """eval_loss by the model's own loss over the same tokens; exact match by its own answers."""
    import torch
    from transformers import AutoTokenizer

    rows = read_rows(dataset / "dev.jsonl")
    model = SourceModel.open(trained).torch_model
    tokenizer = AutoTokenizer.from_pretrained(trained)
    total = tokens = right = 0.0
    for row in rows:
        batch = tokenizer(row.input, return_tensors="pt")
        labels = tokenizer(row.target, return_tensors="pt").input_ids
        with torch.inference_mode():
            total += float(model(**batch, labels=labels).loss) * labels.numel()
            answer = model.generate(**batch, max_new_tokens=64, num_beams=1, do_sample=False)
        tokens += labels.numel()
        text = tokenizer.decode(answer[0], skip_special_tokens=True)
        right += text.split() == row.target.split()
    with load(artifacts / "onnx-float32") as artifact:
        found = measure_accuracy(artifact, rows)
    assert found.rows == len(rows) == len(found.predictions)
    assert found.eval_loss == pytest.approx(total / tokens, abs=1e-4)
    assert found.exact_match == pytest.approx(right / len(rows))
    assert found.truncated == 0


def test_inputs_over_the_limit_are_counted(artifacts: Path) -> None:
    rows = [Row("who made it?", "Who made it?"), Row("word " * 700, "Word?")]
    with load(artifacts / "onnx-int8") as model:
        assert measure_accuracy(model, rows).truncated == 1


def test_a_report_has_a_line_for_each_artifact(artifacts: Path, dataset: Path) -> None:
    rows = read_rows(dataset / "dev.jsonl")[:20]
    folders = [artifacts / "onnx-int8", artifacts / "gguf-q8_0"]
    seen: list[tuple[str, int]] = []
    report = run_bench(
        folders,
        rows,
        runs=30,
        target_ms=60_000,
        on_progress=lambda phase, name, done, of: seen.append((phase, done)),
    )
    assert [r.artifact for r in report.results] == [str(f) for f in folders]
    for result in report.results:
        latency = result.latency
        assert 0 < latency.p25 <= latency.p50 <= latency.p75 <= latency.p95
        assert latency.runs == 30
        assert latency.new_tokens > 1
        assert math.isfinite(result.accuracy.eval_loss)
        assert result.meets_target
    assert ("latency", 30) in seen
    assert ("accuracy", 20) in seen
    values = json.loads(json.dumps(report.as_json()))
    assert values["schema_version"] == 1
    assert values["machine"]["cores"] >= 1
    assert set(values["results"][0]["latency"]) == {
        "runs",
        "p25",
        "p50",
        "p75",
        "p95",
        "new_tokens",
    }


def test_too_few_runs_make_no_median(artifacts: Path) -> None:
    with pytest.raises(UsageError, match="at least 30"):
        run_bench([artifacts / "onnx-int8"], [Row("a", "b")], runs=5)


class _Slow:
    """A model whose answer takes a known time."""

    def __init__(self, model: Any, seconds: float) -> None:
        self._model, self._seconds = model, seconds

    def generate(self, *arguments: Any, **options: Any) -> Any:
        import time

        time.sleep(self._seconds)
        return self._model.generate(*arguments, **options)


def test_latency_sees_a_slow_model(artifacts: Path) -> None:
    rows = [Row("yes", "Yes?")]
    with load(artifacts / "onnx-int8") as model:
        fast, slow = measure_latency([model, _Slow(model, 0.05)], rows, runs=30)  # type: ignore[list-item]
    assert slow.p50 - fast.p50 == pytest.approx(50, abs=25)
    assert slow.p25 > 50


def test_rows_are_spread_over_the_data() -> None:
    rows = [Row(str(i), "") for i in range(10)]
    assert [r.input for r in spread_rows(rows, 5)] == ["0", "2", "4", "6", "8"]
    assert [r.input for r in spread_rows(rows[:2], 5)] == ["0", "1", "0", "1", "0"]


def test_the_command_prints_the_table_and_the_verdict(
    edge: Callable[..., Any], artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    data = dataset / "dev.jsonl"
    arguments = ("bench", artifacts / "onnx-int8", "--data", data, "--runs", 30, "--limit", 20)
    ended = edge(*arguments, "--target-ms", 60_000, "--json", report)
    assert ended.status == 0, ended.err
    for word in ("onnx int8", "exact match", "ROUGE-L", "BLEU", "eval_loss", "p50", "p95"):
        assert word in ended.out
    assert "meets" in ended.out
    values = json.loads(report.read_text())
    check_document(values)
    assert values["results"][0]["verdict"] == "meets"
    assert values["command"].startswith(f"edge bench {artifacts / 'onnx-int8'} --data")
    assert values["data"]["sha256"] == sha256_of(data)
    assert values["baseline"]["rows"] == 20
    assert np.isfinite(values["results"][0]["accuracy"]["bleu"])
    reference = artifacts / "onnx-float32"
    page = tmp_path / "report.html"
    missed = edge(*arguments, "--target-ms", 0.001, "--reference", reference, "--html", page)
    assert missed.status == 3
    assert "misses" in missed.out
    assert f"those of {reference} to the letter" in missed.out
    assert "Nothing meets the target of 0.001 ms" in page.read_text()
    assert "no artifact meets the target: the best p95 is" in missed.err


def test_rows_without_targets_are_refused(artifacts: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "x"}\n')
    with pytest.raises(DataError, match="no column 'target'"):
        read_rows(path)
