"""The engine benchmark on tiny shapes: real engines, requests and answers; no timings."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from edge.bench.engines.baselines.table import BASELINES
from edge.bench.engines.batches import (
    BatchSpeed,
    batch_bytes,
    batch_runs,
    batch_speed,
    check_batches,
)
from edge.bench.engines.cache import Prepared, bits_of, choose_targets
from edge.bench.engines.matrix_rate import MatrixRate, best_of, time_products
from edge.bench.engines.process import baselines_python, start
from edge.bench.engines.random_ids import RandomIds
from edge.bench.engines.results import (
    EngineReport,
    EngineRow,
    EnginesInterruptedError,
    Settings,
    Speed,
    engine_reports,
    engines_document,
)
from edge.bench.engines.roofline import (
    decoder_bytes_per_token,
    decoder_macs_per_token,
    once_macs,
    read_bandwidth,
    roofline_of,
    rooflines,
)
from edge.bench.engines.run import run_engines
from edge.bench.engines.runner import thread_counts
from edge.bench.engines.shapes import SHAPES, write_model
from edge.bench.speculation.results import speculation_document, speculation_reports
from edge.bench.speculation.run import run_speculation
from edge.bench.timing.line_process import EngineFailedError, EngineMissingError
from edge.cli.display.engine_batches import batch_table, step_table
from edge.cli.display.engine_notes import report_notes
from edge.export.publish import Target
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.errors import ArtifactError, UnsupportedError, UsageError
from edge.runtime.rows import read_rows

TINY = dataclasses.replace(
    SHAPES["flan-t5-small"],
    vocab_size=2100,  # more than the trained model of the tests has: its rows are replayed
    d_model=64,
    d_kv=16,
    d_ff=96,
    num_heads=3,  # 48 wide, as 6 × 64 of FLAN-T5-small is not its d_model
    num_layers=2,
    num_decoder_layers=2,
)
INT8 = Target("onnx", "int8")
QUICK = Settings(input_tokens=8, new_tokens=4, threads=1, runs=30, target_ms=60_000)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    home = tmp_path_factory.mktemp("tiny")
    return Prepared(home, write_model(TINY, home / "model"))


@pytest.fixture(scope="module")
def int8(tiny: Prepared) -> Prepared:
    """The tiny model with its onnx int8 artifact."""
    tiny.make(tiny.artifact(INT8))
    return tiny


@pytest.fixture
def no_baselines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_BASELINES_PYTHON", str(tmp_path / "none"))


# -- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"tied_head": True, "scale_decoder_outputs": True}])
def test_a_shape_becomes_a_model_of_that_shape(tmp_path: Path, changes: dict[str, Any]) -> None:
    shape = dataclasses.replace(TINY, **changes)
    folder = write_model(shape, tmp_path / "model")
    assert SourceModel.open(folder).architecture == shape
    again = write_model(shape, tmp_path / "again")
    assert (folder / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


def test_a_model_of_a_shape_takes_a_tokenizer(tmp_path: Path, tiny: Prepared) -> None:
    given = tmp_path / "tokenizer.json"
    given.write_bytes((tiny.model / "tokenizer.json").read_bytes())
    folder = write_model(TINY, tmp_path / "model", tokenizer_json=given)
    assert (folder / "tokenizer.json").read_bytes() == given.read_bytes()
    few = dataclasses.replace(TINY, vocab_size=100)
    with pytest.raises(UsageError, match="more than the 100 ids"):
        write_model(few, tmp_path / "few", tokenizer_json=given)
    given.write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        write_model(TINY, tmp_path / "none", tokenizer_json=given)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "tokenizer.json"}


def test_ids_are_as_many_as_asked_and_the_same_each_time(tiny: Prepared) -> None:
    for length in (2, 8, 512):
        ids = RandomIds(tiny.model, TINY).of_length(length)
        assert len(ids) == length
        assert ids[-1] == TINY.eos_token_id
        assert min(ids[:-1]) > TINY.eos_token_id
        assert ids == RandomIds(tiny.model, TINY).of_length(length)


# -- the roofline --------------------------------------------------------------------------------


def test_the_roofline_counts_what_the_exporter_writes(int8: Prepared) -> None:
    """Every decoder matrix of the model, at one byte per weight and a scale for each 128."""
    from safetensors import safe_open

    with safe_open(int8.model / "model.safetensors", "np") as weights:
        sizes = {name: math.prod(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    read = sum(
        size
        for name, size in sizes.items()
        if (name.startswith("decoder") or name == "lm_head.weight")
        and "EncDecAttention.k" not in name  # once per answer
        and "EncDecAttention.v" not in name
        and "norm" not in name
        and "relative" not in name
    )
    read += TINY.d_model  # a row of the embedding
    norms = sum(s for n, s in sizes.items() if n.startswith("decoder") and "norm" in n)
    expected = read + math.ceil(read / 128) * 4 + norms * 4
    assert decoder_bytes_per_token(TINY, 8) == expected
    halved = decoder_bytes_per_token(TINY, 4)
    assert halved == expected - read // 2


def test_the_roofline_counts_the_products_of_encoder_and_cross_attention(tiny: Prepared) -> None:
    """Each weight once per input token, and attention's own two products."""
    from safetensors import safe_open

    with safe_open(tiny.model / "model.safetensors", "np") as weights:
        once = sum(
            math.prod(weights.get_slice(name).get_shape())
            for name in weights.keys()  # noqa: SIM118
            if (name.startswith("encoder.block") and "norm" not in name and "relative" not in name)
            or "EncDecAttention.k" in name
            or "EncDecAttention.v" in name
        )
    attention = 2 * 8 * 8 * TINY.inner_dim * TINY.num_layers
    assert once_macs(TINY, 8) == 8 * once + attention


def test_the_roofline_is_bytes_over_bandwidth_and_arithmetic() -> None:
    rates = {"bandwidth": 1e9, "macs_per_second": 1e9}
    lengths = {"input_tokens": 8, "new_tokens": 16}
    one = roofline_of(TINY, bits=8, **rates, **lengths)
    size, once = decoder_bytes_per_token(TINY, 8), once_macs(TINY, 8)
    assert one.ms == pytest.approx((once + 16 * size) / 1e6)
    assert one.answers_per_second == pytest.approx(1000 / one.ms)
    # A large batch is limited by its products, not by reading.
    many = roofline_of(TINY, bits=8, **rates, **lengths, batch=64)
    assert many.ms == pytest.approx(64 * (once + 16 * decoder_macs_per_token(TINY)) / 1e6)
    assert one.answers_per_second < many.answers_per_second < 64 * one.answers_per_second
    assert rooflines(TINY, (8,), **{**rates, "macs_per_second": 0.0}, **lengths) == {}
    assert read_bandwidth(1, buffer_bytes=8 << 20, repeats=3) > 1e8  # 0.1 GB/s: any machine


def _row(name: str, p50: float, *, bits: int = 8, is_baseline: bool = False) -> EngineRow:
    times = (*[p50 - 1] * 50, *[p50] * 40, *[p50 + 1] * 10)
    speed = Speed(1, 5.0, 5.0, p50 - 1, p50, p50 + 1, 4.0, 1.0, 9 * 10**7, 10**8, times)
    return EngineRow(name, name, f"int{bits}", bits, is_baseline, size=10, speed=speed)


def test_ratios_are_to_the_fastest_baseline_of_the_same_precision() -> None:
    rows = [_row("ours", 10.0), _row("ours-4", 8.0, bits=4)]
    rows += [_row("slow", 50.0, is_baseline=True), _row("fast", 25.0, is_baseline=True)]
    # In batches of 4, the one that is slower alone is faster.
    for place, ms in ((0, 20.0), (2, 30.0), (3, 40.0)):
        rows[place] = dataclasses.replace(
            rows[place], batches=(batch_speed(4, 2, [ms] * 5, [5.0] * 5, 16),)
        )
    rows[1] = dataclasses.replace(rows[1], batches=(BatchSpeed(4, failure="crashed (SIGKILL)"),))
    settings = Settings(target_ms=9.0, new_tokens=16, batches=(4,))
    lengths = {"input_tokens": 32, "new_tokens": 16}
    rates = {"bandwidth": 1e9, "macs_per_second": 1e9}
    found = rooflines(TINY, (8, 4), **rates, **lengths)
    rate = MatrixRate("a product", 1e9, {"a product": 1e9})
    many = list(rooflines(TINY, (8,), **rates, **lengths, batch=4).values())
    report = EngineReport(
        "tiny",
        True,
        settings,
        rows,
        1e9,
        rate,
        found,
        [],
        {"cores": 2, "cpu": "A CPU"},
        "now",
        batch_rooflines=many,
    )
    best = report.best_baseline(8)
    assert best is not None
    assert best.name == "fast"
    assert report.times_faster(rows[0]) == pytest.approx(2.5)
    assert report.times_faster(rows[1]) is None  # no baseline of four bits
    assert report.times_faster(rows[2]) == pytest.approx(0.5)
    assert report.times_roofline(rows[0]) == pytest.approx(10 / found[8].ms)
    assert not report.meets_target(rows[0])  # p95 is 11
    assert report.meets_target(rows[1])  # p95 is 9: at the target is met
    assert report.any_meets_target
    words = [verdict.word for row in rows if (verdict := report.verdict(row))]
    assert words == ["misses", "meets", "misses", "misses"]
    assert report.as_json()["rows"][1]["verdict_reason"].startswith("0 of 100 runs above 9 ms")
    assert report.batch_times_faster(rows[0], 4) == pytest.approx(1.5)
    assert report.batch_times_faster(rows[0], 16) is None
    assert report.batch_times_faster(rows[1], 4) is None
    assert report.batch_times_roofline(rows[0], 4) == pytest.approx(20 / many[0].ms)
    document = json.loads(json.dumps(engines_document([report])))
    assert engine_reports(document) == [report]
    table = Console(width=200, record=True, file=io.StringIO())
    table.print(batch_table(report))
    table.print(step_table(report))
    assert "200.0 (200.0–200.0) 1.50×" in (text := table.export_text())
    assert "failed" in text
    assert "1.00 1.00×" in text  # (20 − 5) ÷ 15 ms per step
    assert any("ours-4, batch 4: crashed (SIGKILL)" in note for note in report_notes(report))


def test_few_runs_show_no_target_met() -> None:
    row = _row("ours", 10.0)
    assert row.speed is not None
    few = dataclasses.replace(row.speed, times_ms=(10.0,) * 89)
    rows = [dataclasses.replace(row, speed=few)]
    report = EngineReport(
        "tiny", True, Settings(target_ms=90), rows, 1e9, MatrixRate(), {}, [], {}, "now"
    )
    assert not report.any_meets_target
    verdict = report.verdict(rows[0])
    assert verdict is not None
    assert verdict.word == "not shown"
    assert "about 1 more runs with none above" in verdict.reason


def test_a_baseline_that_meets_the_target_is_not_ours() -> None:
    rows = [_row("ours", 50.0), _row("baseline", 2.0, is_baseline=True)]
    report = EngineReport(
        "tiny", True, Settings(target_ms=9), rows, 1e9, MatrixRate(), {}, [], {}, "now"
    )
    assert not report.any_meets_target


def test_the_best_of_all_products_counts() -> None:
    found = time_products(1, size=(32, 256, 128), repeats=3)
    assert "onnxruntime MatMulInteger" in found
    assert len(found) >= 3
    assert min(found.values()) > 1e7  # 0.01 billion a second: any machine
    best = best_of(found)
    assert best.macs_per_second == found[best.name] == max(found.values())
    twice = best.merged(MatrixRate("new", 1e15, {"new": 1e15}))
    assert twice.name == "new"
    assert set(twice.products) == {*found, "new"}
    assert best_of({}) == MatrixRate()


# -- batches -------------------------------------------------------------------------------------


def test_a_batch_beyond_memory_is_refused_before_any_work(
    assert_refused: Callable[..., str], tiny: Prepared
) -> None:
    large = SHAPES["flan-t5-large"]
    needed = batch_bytes(large, 64, 32, 16)
    assert 64 * 2 * 24 * 2 * 1024 * 48 * 4 < needed < 4e9  # keys and values twice
    lengths = {"input_tokens": 32, "new_tokens": 16}
    check_batches("large", large, (1, 64), **lengths, free=needed)
    with pytest.raises(UsageError, match="--batch 64 needs about .* GB with large"):
        check_batches("large", large, (64, 1), **lengths, free=needed - 1)
    line = assert_refused("bench-engines", "flan-t5-small", "--batch", 10**9)
    assert "use a smaller batch" in line
    assert_refused("bench-engines", "flan-t5-small", "--batch", 0)
    with pytest.raises(UsageError, match="at least 1"):
        Settings(batches=(4, 0))


def test_few_large_batches_and_many_small_ones() -> None:
    assert [batch_runs(batch, 100) for batch in (1, 4, 16, 64)] == [100, 25, 7, 5]


def test_rows_of_a_batch_differ_and_start_as_a_smaller_batch(tiny: Prepared) -> None:
    ids = RandomIds(tiny.model, TINY)
    rows = ids.rows(8, 16)
    assert len(set(rows)) == 16
    assert {len(row) for row in rows} == {8}
    assert ids.rows(8, 4) == rows[:4]
    assert rows[0] == ids.of_length(8)


def test_batches_are_measured_beside_single_answers(tiny: Prepared, no_baselines: None) -> None:
    settings = dataclasses.replace(QUICK, batches=(1, 3))
    baselines = ("llama-q8_0", "ctranslate2-int8", "openvino-int8")
    report = run_engines("tiny", tiny, TINY, [INT8], settings, baselines=baselines)
    for row in report.rows[:3]:
        assert row.speed is not None, row.failure
        # llama.cpp answers one by one: as many a second in every batch.
        one_by_one = row.engine == "llama.cpp"
        assert [len(one.times_ms) for one in row.batches] == ([30] if one_by_one else [30, 10])
        assert all(one.p5 <= one.p50 <= one.p95 for one in row.batches)
        assert all(0 < one.step_ms < one.p50 for one in row.batches)
        if one_by_one:
            continue
        assert (one := row.batch(3)) is not None
        assert one.answers_per_second == pytest.approx(3 / one.p50 * 1000)
        assert report.batch_times_roofline(row, 3) is not None
    assert "not installed" in report.rows[3].batches[0].failure
    assert {one.batch for one in report.batch_rooflines} == {1, 3}
    document = json.loads(json.dumps(engines_document([report])))
    assert engine_reports(document) == [report]


# -- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "onnx-int4",
        "gguf-q8_0",
        pytest.param("ctranslate2-int8", marks=pytest.mark.slow),
        pytest.param("torchscript-int8", marks=pytest.mark.slow),
    ],
)
def test_every_format_is_made_and_gives_exactly_so_many_tokens(tiny: Prepared, target: str) -> None:
    name, _, quantization = target.partition("-")
    spec = tiny.artifact(Target(name, quantization))
    tiny.make(spec)
    with load(spec.cache, verify=True) as model:  # an artifact like any other
        assert model.artifact.manifest.quantization == quantization
    process = start(spec)
    try:
        for new_tokens in (1, 7):
            timed = process.time(RandomIds(tiny.model, TINY).rows(8), new_tokens, 2)
            assert len(timed.ms) == 2
            assert min(timed.ms) > 0
            assert timed.peak_rss >= timed.rss > 10e6
    finally:
        process.close()


@pytest.mark.parametrize(
    "name", ["transformers-float32", "torch-int8", "llama-q8_0", "ctranslate2-int8"]
)
def test_baselines_of_this_environment_answer(tiny: Prepared, name: str) -> None:
    """The program refuses an answer with another number of tokens than requested."""
    spec = tiny.baseline(name)
    tiny.make(spec)
    process = start(spec)
    try:
        assert len(process.time(RandomIds(tiny.model, TINY).rows(8), 5, 1).ms) == 1
    finally:
        process.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name, baseline in BASELINES.items() if baseline.separate]
)
def test_baselines_of_the_other_environment_answer(tiny: Prepared, name: str) -> None:
    if baselines_python() is None:
        pytest.skip("no baselines' environment (make baselines)")
    test_baselines_of_this_environment_answer(tiny, name)


def test_another_number_of_tokens_is_an_error(int8: Prepared) -> None:
    """One more than the artifact's limit of new tokens: the engine reports the error."""
    process = start(int8.artifact(INT8))
    try:
        with pytest.raises(EngineFailedError, match="limit is 512"):
            process.time(RandomIds(int8.model, TINY).rows(8), 513, 1)
    finally:
        process.close()


def test_a_crash_is_reported_with_its_signal(int8: Prepared) -> None:
    process = start(int8.artifact(INT8))
    try:
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(EngineFailedError, match=r"crashed \(SIGKILL\)"):
            process.time(RandomIds(int8.model, TINY).rows(8), 2, 1)
    finally:
        process.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_engine_that_waits_is_stopped(int8: Prepared) -> None:
    process = start(int8.artifact(INT8))
    try:
        process.time(RandomIds(int8.model, TINY).rows(8), 2, 1)
        assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    finally:
        process.close()
    assert not psutil.pid_exists(process.pid)


def test_a_library_that_is_not_installed_is_named(
    tiny: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This environment has no Optimum: as the baselines' environment, it lacks a library."""
    import importlib.util

    if importlib.util.find_spec("optimum"):
        pytest.skip("Optimum is installed here")
    monkeypatch.setenv("EDGE_BASELINES_PYTHON", sys.executable)
    with pytest.raises(EngineMissingError, match="optimum"):
        start(tiny.baseline("optimum-int8"))


# -- whole runs ----------------------------------------------------------------------------------


def test_what_fails_has_a_row_and_the_rest_is_measured(tiny: Prepared, no_baselines: None) -> None:
    """One engine is killed during the run, one is damaged, one not installed, one works."""
    int4 = tiny.artifact(Target("onnx", "float32"))
    tiny.make(int4)
    (int4.cache / "edge.json").write_text("{}")
    killed: list[int] = []

    def kill(phase: str, what: str, done: int, of: int) -> None:
        if phase == "latency" and not killed:
            for child in psutil.Process().children():
                if '"target": "onnx-int4"' in " ".join(child.cmdline()):
                    killed.append(child.pid)
                    child.kill()

    targets = [INT8, Target("onnx", "int4"), Target("onnx", "float32")]
    report = run_engines(
        "tiny", tiny, TINY, targets, QUICK, baselines=("openvino-int8",), on_progress=kill
    )
    shutil.rmtree(int4.cache)  # others make it again
    assert killed
    well, crashed, damaged, missing = report.rows
    assert well.speed is not None
    assert not well.failure
    assert len(well.speed.times_ms) == QUICK.runs
    assert 0 < well.speed.p5 <= well.speed.p50 <= well.speed.p95
    assert well.size == sum(f.stat().st_size for f in tiny.artifact(INT8).cache.iterdir())
    assert crashed.failure.startswith("crashed (SIGKILL)")
    assert "edge.json" in damaged.failure
    assert missing.failure == "not installed: the baselines' environment (make baselines)"
    assert {row.speed is None for row in (crashed, damaged, missing)} == {True}
    assert not psutil.Process().children()


def test_ctrl_c_leaves_the_rows_that_were_measured(int8: Prepared) -> None:
    def stop(phase: str, what: str, done: int, of: int) -> None:
        if phase == "latency" and done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(EnginesInterruptedError) as stopped:
        run_engines("tiny", int8, TINY, [INT8], QUICK, on_progress=stop)
    report = stopped.value.report
    assert report.interrupted
    [row] = report.rows
    assert row.speed is not None
    assert len(row.speed.times_ms) == 10

    def stop_early(phase: str, what: str, done: int, of: int) -> None:
        if phase == "threads":
            raise KeyboardInterrupt

    with pytest.raises(EnginesInterruptedError) as stopped:
        run_engines("tiny", int8, TINY, [INT8], QUICK, on_progress=stop_early)
    assert [r.failure for r in stopped.value.report.rows] == ["not measured: interrupted"]
    assert json.loads(json.dumps(stopped.value.report.as_json()))["interrupted"]
    assert not psutil.Process().children()


@pytest.mark.slow
def test_scaling_covers_all_lengths(int8: Prepared) -> None:
    report = run_engines("tiny", int8, TINY, [INT8], QUICK, scaling=True)
    [scaling] = report.scaling
    assert [point.new_tokens for point in scaling.by_new_tokens] == [16, 32, 64, 128]
    assert {point.input_tokens for point in scaling.by_new_tokens} == {8}
    assert [point.input_tokens for point in scaling.by_input_tokens] == [16, 32, 128, 512]
    assert {point.new_tokens for point in scaling.by_input_tokens} == {4}
    assert scaling.flatness >= 1


def test_the_command_prints_the_table_and_the_verdict(
    edge: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    report = tmp_path / "report.json"
    arguments = (
        "bench-engines",
        "tiny",
        "--quantize",
        "int4_mixed",
        "--cache",
        tmp_path / "cache",
    )
    sizes = ("--input-tokens", 8, "--new-tokens", 4, "--max-threads", 1, "--json", report)
    ended = edge(*arguments, *sizes, "--target-ms", 60_000)
    assert ended.status == 0, ended.err
    for word in ("random weights: speed only", "int4_mixed", "per token", "× roofline", "meets"):
        assert word in ended.out
    assert "best baseline" not in ended.out
    [values] = json.loads(report.read_text())["reports"]
    [row] = values["rows"]
    assert values["random_weights"]
    assert values["rooflines"]["4"]["ms"] > 0
    assert row["meets_target"]
    assert row["times_roofline"] > 0
    assert len(row["speed"]["times_ms"]) == 100
    missed = edge(*arguments, *sizes, "--target-ms", 0.001)
    assert missed.status == 3
    assert "misses" in missed.out
    assert "tiny: no artifact meets the target 0.001 ms" in missed.err


@pytest.mark.slow
def test_a_model_folder_stands_for_a_shape(
    edge: Callable[..., Any], tiny: Prepared, tmp_path: Path
) -> None:
    report, cache = tmp_path / "report.json", tmp_path / "cache"
    quick = ("--quantize", "int4_mixed", "--max-threads", 1, "--new-tokens", 4, "--runs", 30)
    ended = edge("bench-engines", tiny.model, *quick, "--cache", cache, "--json", report)
    assert ended.status == 3  # 30 runs show no target met
    assert "random weights" not in ended.out
    [values] = json.loads(report.read_text())["reports"]
    assert not values["random_weights"]
    assert values["rows"][0]["speed"]["p50"] > 0
    assert list(cache.rglob("edge.json"))
    assert not list(cache.rglob("model.safetensors"))  # the model is read where it is


def test_wrong_names_and_values_are_refused(assert_refused: Callable[..., str]) -> None:
    shape = ("bench-engines", "flan-t5-small")
    assert "Missing argument 'SHAPE_OR_MODEL...'" in assert_refused("bench-engines")
    assert "Did you mean 'flan-t5-small'" in assert_refused("bench-engines", "flan-t5-smal")
    assert "no such model folder" in assert_refused("bench-engines", "./nowhere/model")
    assert "at least 30" in assert_refused(*shape, "--runs", 5)
    assert "unknown format" in assert_refused(*shape, "--format", "onx")
    assert "quantization" in assert_refused(*shape, "--format", "ctranslate2", "--quantize", "int4")


def test_targets_of_options() -> None:
    names = [target.name for target in choose_targets((), ("int4",))]
    assert names == ["onnx-int4", "gguf-q4_k_m"]  # the formats that have it
    assert [t.name for t in choose_targets(("gguf",), ())] == ["gguf-q8_0"]
    assert [bits_of(n) for n in ("int8", "int4_mixed", "q4_k_m", "bfloat16", "f32")] == [
        8,
        4,
        4,
        16,
        32,
    ]
    assert thread_counts(1) == [1]
    assert thread_counts(6) == [1, 2, 4, 6]


# -- speculation ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx-int8", "gguf-q8_0", "torchscript-float32"])
def test_drafts_are_measured_and_replayed_step_by_step(
    artifacts: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The replay refuses other steps or another answer than the trained model's."""
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    rows = read_rows(dataset / "dev.jsonl")[:40]
    report = run_speculation(artifacts / name, rows, replay="tiny", cache=tmp_path, draft_tokens=4)
    assert report.identical == report.rows == 40
    assert report.tokens_per_step > 1.2  # a model that copies
    _, same, nothing, wrong = report.gains
    assert same.what == "tiny, the same drafts"
    assert same.tokens_per_step > 1.2
    assert nothing.tokens_per_step == wrong.tokens_per_step == 1
    assert all(gain.speedup > 0 and gain.runs == 30 for gain in report.gains)
    assert not list(tmp_path.rglob(".replay-*"))
    document = json.loads(json.dumps(speculation_document([report])))
    assert speculation_reports(document) == [report]


def test_speculation_needs_an_engine_with_drafts(
    artifacts: Path, dataset: Path, edge: Callable[..., Any], tmp_path: Path
) -> None:
    rows = read_rows(dataset / "dev.jsonl")[:2]
    with pytest.raises(UnsupportedError, match="ctranslate2 has no drafts from the input"):
        run_speculation(artifacts / "ctranslate2-int8", rows)
    with pytest.raises(UsageError, match="at least 30"):
        run_speculation(artifacts / "onnx-int8", rows, runs=3)
    report = tmp_path / "report.json"
    data = dataset / "dev.jsonl"
    ended = edge(
        "bench-speculation", artifacts / "onnx-int8", "--data", data, "--limit", 10,
        "--json", report,
    )  # fmt: skip
    assert ended.status == 0, ended.err
    assert "10/10 answers identical" in ended.out
    assert json.loads(report.read_text())["reports"][0]["gains"][0]["runs"] == 30
