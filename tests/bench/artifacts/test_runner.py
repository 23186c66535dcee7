"""Figures from artifacts alone: right, complete, and honest about what was cut."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edge.bench.artifacts.accuracy import measure_accuracy
from edge.bench.artifacts.results import BenchInterruptedError, BenchSettings, Report
from edge.bench.artifacts.runner import BenchmarkedArtifact, run_bench
from edge.bench.engines.process_model import RemoteModel
from edge.bench.report.document import check_document
from edge.bench.timing.latency import spread_rows
from edge.bench.timing.overhead import measure_overhead
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.artifact import Artifact, sha256_of
from edge.runtime.errors import DataError, UsageError
from edge.runtime.install import install_command
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


def test_a_model_in_its_own_process_answers_as_one_in_this(artifacts: Path, dataset: Path) -> None:
    """To the last bit, so that accuracy does not depend on where the engine runs."""
    rows = read_rows(dataset / "dev.jsonl")[:12]
    with load(artifacts / "onnx-int8") as model:
        here = measure_accuracy(model, rows)
    remote = RemoteModel(Artifact.open(artifacts / "onnx-int8"), threads=1)
    try:
        assert measure_accuracy(remote, rows) == here  # type: ignore[arg-type]
        assert remote.load_ms > 0
    finally:
        remote.close()


@pytest.fixture(scope="module")
def report(artifacts: Path, dataset: Path) -> Report:
    """Two artifacts on 20 rows, 100 runs."""
    seen: list[tuple[str, int]] = []
    found = run_bench(
        [artifacts / "onnx-int8", artifacts / "gguf-q8_0"],
        read_rows(dataset / "dev.jsonl")[:20],
        runs=100,
        target_ms=60_000,
        data=dataset / "dev.jsonl",
        command="edge bench …",
        on_progress=lambda phase, name, done, of: seen.append((phase, done)),
    )
    assert {("load", 2), ("latency", 100), ("accuracy", 20)} <= set(seen)
    assert not psutil.Process().children()
    return found


def test_a_report_has_a_line_for_each_artifact(report: Report, artifacts: Path) -> None:
    folders = [artifacts / "onnx-int8", artifacts / "gguf-q8_0"]
    assert [r.artifact for r in report.results] == [str(f) for f in folders]
    for result in report.results:
        latency, accuracy = result.latency, result.accuracy
        assert result.error is None
        assert accuracy is not None
        assert math.isfinite(accuracy.eval_loss)
        assert latency is not None
        assert latency.runs == len(latency.samples_ms) == 100
        spread = [getattr(latency, f"p{p}") for p in (5, 25, 50, 75, 90, 95, 99)]
        assert spread == sorted(spread)
        assert spread[0] > 0
        assert latency.new_tokens > 1
        assert result.meets_target
        assert result.verdict_reason.startswith("0 of 100 runs above 60000 ms")


@pytest.mark.alone  # medians of phases, which another test's work stretches unevenly
def test_the_phases_are_parts_of_the_whole(report: Report) -> None:
    for result in report.results:
        latency = result.latency
        assert latency is not None
        assert latency.per_token_ms is not None
        assert 0 < latency.per_token_ms < latency.first_token_ms < latency.p50
        assert 0 < latency.tokenize_ms + latency.detokenize_ms < latency.p50
        parts = latency.first_token_ms + latency.per_token_ms * (latency.new_tokens - 1)
        seconds = sum(latency.samples_ms) / 1000
        # Of the mean: answers differ in length, so the mean length is not the median call's.
        assert parts == pytest.approx(1000 * seconds / latency.runs, rel=0.3)
        # One at a time: tokens over the time that their calls took.
        tokens = latency.new_tokens * latency.runs
        assert latency.tokens_per_second == pytest.approx(tokens / seconds, rel=0.3)
        assert latency.cold_start_ms > latency.load_ms > 0
        assert latency.peak_rss_mb > 20


def test_the_document_is_what_docs_say(report: Report, dataset: Path) -> None:
    values = json.loads(json.dumps(report.as_json()))
    assert values["schema_version"] == 3
    assert values["kind"] == "artifacts"
    assert values["winner"]["result"] in (0, 1)
    assert values["command"] == "edge bench …"
    assert values["data"] == {
        "path": str(dataset / "dev.jsonl"),
        "rows": 20,
        "sha256": sha256_of(dataset / "dev.jsonl"),
    }
    assert values["settings"] == {
        "runs": 100,
        "seconds": 0.0,
        "batch": [1],
        "concurrency": [1],
        "new_tokens": None,
    }
    machine = values["machine"]
    assert machine["cores"] >= 1
    assert {"governor", "affinity", "pinned", "revision", "isa", "versions"} <= set(machine)
    page = (Path(__file__).parents[3] / "docs" / "bench.md").read_text()
    [result, _] = values["results"]
    assert "predictions" not in result["accuracy"]
    for name in (*values, *machine, *result, *result["latency"], *values["settings"]):
        assert f"`{name}`" in page, name


def test_every_batch_size_and_concurrency_has_a_line(artifacts: Path, dataset: Path) -> None:
    settings = BenchSettings(runs=30, batch=(1, 3), concurrency=(1, 4), new_tokens=6)
    rows = read_rows(dataset / "dev.jsonl")[:7]
    found = run_bench([artifacts / "ctranslate2-int8"], rows, settings=settings).results
    asked = [(result.batch, result.concurrency) for result in found]
    assert asked == [(1, 1), (1, 4), (3, 1), (3, 4)]
    for result in found:
        assert result.error is None, result
        assert result.latency is not None
        # As many for every thread.
        assert result.latency.runs == (32 if result.concurrency == 4 else 30)
        assert result.latency.new_tokens == 6
        assert result.accuracy is found[0].accuracy
    assert found[0].latency is not None
    assert found[2].latency is not None
    assert found[2].latency.p50 > found[0].latency.p50 * 0.5  # three texts, not one


def test_it_goes_on_for_so_many_seconds(artifacts: Path, dataset: Path) -> None:
    rows = read_rows(dataset / "dev.jsonl")[:5]
    settings = BenchSettings(runs=30, seconds=0.5, new_tokens=2)
    [result] = run_bench([artifacts / "onnx-int8"], rows, settings=settings).results
    assert result.latency is not None
    assert result.latency.runs > 30
    assert 0.4 < sum(result.latency.samples_ms) / 1000 < 2


def test_settings_that_make_no_sense_are_refused(artifacts: Path) -> None:
    with pytest.raises(UsageError, match="at least 30"):
        run_bench([artifacts / "onnx-int8"], [Row("a", "b")], runs=5)
    with pytest.raises(UsageError, match="--batch must be numbers from 1"):
        BenchSettings(batch=(0,))
    with pytest.raises(UsageError, match="--concurrency names a number twice"):
        BenchSettings(concurrency=(2, 2))
    with pytest.raises(UsageError, match="--min-time"):
        BenchSettings(seconds=-1)


@pytest.mark.alone  # a token costs less than the noise of a busy machine
def test_latency_sees_a_slow_engine(artifacts: Path, slow_onnx: Callable[[float], None]) -> None:
    """What an answer waits for before its first token is no cost per token."""
    slow_onnx(0.05)
    folders = [artifacts / "onnx-int8", artifacts / "ctranslate2-int8"]
    slow, well = run_bench(folders, [Row("who uh who made it?", "x")], runs=30).results
    assert slow.latency is not None
    assert well.latency is not None
    assert well.latency.p50 < 50 < slow.latency.p5
    assert slow.latency.first_token_ms > 50
    assert slow.latency.encode_ms is not None
    assert slow.latency.encode_ms > 40
    assert slow.latency.per_token_ms is not None
    assert slow.latency.per_token_ms < 10


def test_what_fails_has_a_line_and_the_rest_is_measured(
    artifacts: Path, dataset: Path, crashing_gguf: Callable[..., None]
) -> None:
    """One engine crashes at its first answer, one is not installed, one is damaged, one is well."""
    crashing_gguf("generate", missing_ctranslate2=True)
    names = ("gguf-q8_0", "ctranslate2-int8", "onnx-int8")
    rows = read_rows(dataset / "dev.jsonl")[:4]
    report = run_bench([artifacts / name for name in names], rows, runs=30)
    crashed, missing, well = report.results
    assert crashed.error is not None
    assert crashed.error.startswith("crashed (SIGABRT)")
    assert missing.error == f"not installed: ctranslate2 ({install_command('ctranslate2')})"
    for failed in (crashed, missing):
        assert failed.latency is None
        assert failed.accuracy is None
        assert failed.verdict == "not shown"
    assert well.error is None
    assert well.accuracy is not None
    assert report.measured == [well]


def test_a_crash_while_scoring_keeps_the_latency(
    artifacts: Path, dataset: Path, crashing_gguf: Callable[..., None]
) -> None:
    crashing_gguf("score")
    rows = read_rows(dataset / "dev.jsonl")[:4]
    report = run_bench([artifacts / "gguf-q8_0"], rows, runs=100, target_ms=60_000)
    [result] = report.results
    assert result.error is not None
    assert "SIGABRT" in result.error
    assert result.latency is not None
    assert result.latency.runs == 100
    assert not report.any_meets_target


def test_ctrl_c_leaves_what_was_measured(artifacts: Path, dataset: Path) -> None:
    rows = read_rows(dataset / "dev.jsonl")[:4]

    def stop(phase: str, what: str, done: int, of: int) -> None:
        if phase == "latency" and done >= 40:
            raise KeyboardInterrupt

    folders = [artifacts / "onnx-int8", artifacts / "onnx-float32"]
    settings = BenchSettings(runs=100, batch=(1, 2))
    with pytest.raises(BenchInterruptedError) as stopped:
        run_bench(folders, rows, settings=settings, on_progress=stop)
    report = stopped.value.report
    assert report.interrupted
    measured, unmeasured = report.results[:2]
    assert measured.latency is not None
    assert measured.latency.runs == 40
    assert measured.error is None
    assert measured.verdict == "not shown"
    assert unmeasured.error == "not measured: interrupted"
    assert not psutil.Process().children()


def test_rows_that_the_prompt_is_not_made_for_are_refused(artifacts: Path, tmp_path: Path) -> None:
    folder = _with_prompt(artifacts / "onnx-int8", tmp_path / "fields", "[{task}] {input}")
    with pytest.raises(UsageError, match=r"the data needs a column 'task' .* in line 7"):
        run_bench([folder], [Row("a", "b", line=7)])
    folder = _with_prompt(artifacts / "onnx-int8", tmp_path / "prefix", "fix: {input}")
    rows = [Row("fix: who made it?", "Who?"), Row("fix: who?", "Who?")]
    with pytest.raises(UsageError, match="would be added twice"):
        run_bench([folder], rows)


def test_other_texts_than_the_model_knows_are_pointed_out(artifacts: Path, tmp_path: Path) -> None:
    other = _with_prompt(artifacts / "onnx-int8", tmp_path / "other", "fix: {input}")
    rows = [Row("何が 作られた", "何"), Row("who made it?", "Who?")]
    notes = run_bench([artifacts / "onnx-int8", other], rows, runs=30).notes
    assert "1 of 2 inputs contain characters that the tokenizer of" in notes[0]
    assert "The artifacts have different prompts: 'fix: {input}', '{input}'." in notes


def _with_prompt(artifact: Path, folder: Path, template: str) -> Path:
    """A copy of an artifact as an export with that prompt would have left it."""
    shutil.copytree(artifact, folder)
    path = folder / "edge.json"
    values = json.loads(path.read_text())
    values["prompt_template"] = values["text_path"]["prompt_template"] = template
    path.write_text(json.dumps(values))
    return folder


@pytest.mark.alone  # tens of microseconds, which a busy machine triples
def test_the_harness_costs_less_than_a_hundredth_of_a_call() -> None:
    """Microseconds, by the best of ten medians: a slow stretch is not the harness."""
    found = [measure_overhead(calls=10) for _ in range(10)]
    assert min(one.call_ms for one in found) >= 10
    assert 0 <= min(one.in_call_ms for one in found) < 0.1


def test_rows_are_spread_over_the_data() -> None:
    rows = [Row(str(i), "") for i in range(10)]
    assert [r.input for r in spread_rows(rows, 5)] == ["0", "2", "4", "6", "8"]
    assert [r.input for r in spread_rows(rows[:2], 5)] == ["0", "1", "0", "1", "0"]


def test_the_command_prints_the_table_and_the_verdict(
    edge: Callable[..., Any], artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    data = dataset / "dev.jsonl"
    arguments = ("bench", artifacts / "onnx-int8", "--data", data, "--limit", 20)
    arguments += ("--min-time", 0)
    ended = edge(*arguments, "--target-ms", 60_000, "--json", report)
    assert ended.status == 0, ended.err
    for word in ("onnx int8", "exact match", "ROUGE-L", "BLEU", "eval_loss", "p50", "p95"):
        assert word in ended.out
    assert "meets" in ended.out
    values = json.loads(report.read_text())
    check_document(values)
    assert values["results"][0]["verdict"] == "meets"
    assert values["command"].startswith("edge bench ")
    assert values["data"]["sha256"] == sha256_of(data)
    assert values["baseline"]["rows"] == values["data"]["rows"] == 20
    assert np.isfinite(values["results"][0]["accuracy"]["bleu"])
    reference = artifacts / "onnx-float32"
    page = tmp_path / "report.html"
    missed = edge(*arguments, "--target-ms", 0.001, "--reference", reference, "--html", page)
    assert missed.status == 3
    assert "misses" in missed.out
    assert f"identical to those of {reference}" in missed.out
    assert "No artifact meets the target of 0.001 ms" in page.read_text()
    assert "no artifact meets the target: the best p95 is" in missed.err
    # 30 runs show no p95, however far from the target they are.
    unshown = edge(*arguments, "--target-ms", 60_000, "--runs", 30, "--batch", "1,2")
    assert unshown.status == 3
    assert "not shown" in unshown.out
    assert "about 60 more runs with none above would decide it" in unshown.err


def test_the_command_writes_what_was_measured_before_ctrl_c(
    edge: Callable[..., Any],
    artifacts: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = []
    time_calls = BenchmarkedArtifact.time_calls

    def interrupted(self: BenchmarkedArtifact, *arguments: Any) -> float:
        turns.append(self.name)
        if len(turns) > 6:
            raise KeyboardInterrupt
        return time_calls(self, *arguments)

    monkeypatch.setattr(BenchmarkedArtifact, "time_calls", interrupted)
    report = tmp_path / "report.json"
    folders = artifacts / "onnx-int8", artifacts / "onnx-float32"
    ended = edge("bench", *folders, "--data", dataset / "dev.jsonl", "--json", report)
    assert ended.status == 130
    assert "interrupted" in ended.err
    assert "onnx" in ended.out
    values = json.loads(report.read_text())
    assert values["interrupted"]
    assert [result["latency"]["runs"] for result in values["results"]] == [15, 15]
    assert [result["accuracy"] for result in values["results"]] == [None, None]


def test_the_command_says_when_nothing_could_be_measured(
    edge: Callable[..., Any],
    artifacts: Path,
    dataset: Path,
    crashing_gguf: Callable[..., None],
) -> None:
    crashing_gguf("generate")
    ended = edge("bench", artifacts / "gguf-q8_0", "--data", dataset / "dev.jsonl")
    assert ended.status == 1
    assert "nothing could be measured" in ended.err
    assert "crashed (SIGABRT)" in ended.out


def test_data_with_other_columns_are_refused(
    assert_refused: Callable[..., str], artifacts: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "x", "reply": "y"}\n')
    refusal = assert_refused("bench", artifacts / "onnx-int8", "--data", path)
    assert "rows.jsonl:1: no column 'input'; this row has: 'query', 'reply'" in refusal
    arguments = ("bench", artifacts / "onnx-int8", "--data", path)
    assert "not a list of whole numbers" in assert_refused(*arguments, "--batch", "1;8")


def test_rows_without_targets_are_refused(artifacts: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "x"}\n')
    with pytest.raises(DataError, match="no column 'target'"):
        read_rows(path)
