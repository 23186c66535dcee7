"""`edge compile` on a model trained for seconds: results, bad input, interrupted searches."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.bench.compiler.space import ArtifactSpec, Candidate
from edge.bench.compiler.trial_store import TrialStore
from edge.bench.compiler.trials import TrialRunner
from edge.bench.compiler.worker import failure
from edge.runtime import Artifact, load
from edge.runtime.errors import EdgeError, ParityError
from edge.runtime.rows import read_rows

# Two artifacts and two ways to run each: all of the search, in seconds.
SMALL = ("--format", "onnx", "--quantize", "int8", "--quantize", "none", "--threads-to-try", "1")
Edge = Callable[..., Any]


def entries(work: Path) -> dict[str, int]:
    """The stored entries and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in work.glob("entries/*.json")}


@pytest.fixture(scope="module")
def call(trained: Path, dataset: Path) -> Callable[[Path], list[str]]:
    def arguments(output: Path, *more: str) -> list[str]:
        words = ["compile", trained, "--data", dataset / "dev.jsonl", "--output", output]
        return [str(word) for word in (*words, *SMALL, *more)]

    return arguments


def test_the_winner_is_published_with_its_evidence(
    call: Callable[..., list[str]],
    dataset: Path,
    edge: Edge,
    assert_refused: Edge,
    tmp_path: Path,
) -> None:
    output = tmp_path / "best"
    ended = edge(*call(output, "--shortlist", str(dataset / "train.jsonl"), "--no-drafts"))
    assert ended.status == 0, ended.err
    manifest = Artifact.open(output, verify=True).manifest
    report = json.loads((tmp_path / "best.report.json").read_text(encoding="utf-8"))
    facts = manifest.compiled
    assert facts["winner"] == report["winner"]
    assert facts["meets_target"]
    assert facts["complete"]
    assert facts["machine"]["cpu"] == report["machine"]["cpu"]
    assert "--max-drop" not in facts["command"]
    assert facts["command"].startswith("edge compile tiny --data dev.jsonl --output best")
    [line] = [one for one in report["tried"] if one["outcome"] == "chosen"]
    assert (line["name"], line["format"]) == (report["winner"], "onnx")
    assert line["drop"] <= 0.005
    assert line["answers"] == 165  # of 60 rows: what a p95 takes
    assert {one["name"] for one in report["tried"]} == {one["name"] for one in facts["tried"]}
    assert len(report["tried"]) == report["space"]["combinations"] == 4
    assert sum(one["shortlist"] for one in report["tried"]) == 2
    assert bool(manifest.shortlist) is line["shortlist"]
    # The artifact runs as it was measured.
    with load(output) as model:
        assert model.engine.threads == line["threads"]
        assert model.defaults.prompt_lookup_num_tokens == line["draft_tokens"]
        assert model.defaults.is_plain_greedy
        assert model.generate("where was um was the bridge built?").text
    written = (tmp_path / "best.report.md").read_text(encoding="utf-8")
    assert line["name"] in written
    assert line["name"] in ended.out
    assert report["verdict"] in " ".join(edge("info", output).out.split())  # lines are wrapped
    # Nothing else is left beside it, and it is not replaced unasked.
    assert {path.name for path in tmp_path.iterdir()} == {
        "best",
        "best.report.json",
        "best.report.md",
    }
    assert "--force" in assert_refused(*call(output))


def test_a_missed_target_leaves_what_a_further_call_goes_on_from(
    call: Callable[..., list[str]], edge: Edge, tmp_path: Path
) -> None:
    output, work = tmp_path / "best", tmp_path / "best.work"
    few = tmp_path / "few.jsonl"
    few.write_text('{"input": "a question", "target": "an answer"}\n')
    missed = ("--target-ms", "0.01", "--shortlist", str(few))
    ended = edge(*call(output, *missed))
    assert ended.status == 3
    # Artifacts that can't be exported are skipped.
    assert "not available: onnx-float32-shortlist, onnx-int8-shortlist: " in ended.out
    assert "too few to hold out a tenth" in ended.out
    assert "× the target of 0.01 ms" in ended.err
    assert "What would help" in ended.out
    assert "4 bit: --quantize" in ended.out
    assert not output.exists()
    before = entries(work)
    # The fastest turns out to be inaccurate: it is not accepted, and another takes its place.
    report = json.loads((tmp_path / "best.report.json").read_text(encoding="utf-8"))
    full = [one for one in report["tried"] if one["score"] is not None]
    fastest = min(full, key=lambda one: one["p50_ms"])
    path = work / "entries" / f"timed-{fastest['name']}-165.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["answers"] = ["nothing"] * 165
    path.write_text(json.dumps(values), encoding="utf-8")
    ended = edge(*call(output, *missed, "--keep-best"))
    assert ended.status == 3
    assert f"going on with {len(before)} results" in ended.err
    assert f"it was written to {output}" in ended.err.replace("\n", "")
    manifest = Artifact.open(output).manifest
    facts = manifest.compiled
    assert manifest.quantization != fastest["quantization"]
    assert facts["winner"].startswith(f"onnx-{manifest.quantization}_")
    [refused] = [one for one in facts["tried"] if one["name"] == fastest["name"]]
    assert refused["outcome"] == "out of the accuracy budget"
    assert not facts["meets_target"]
    assert not work.exists()


@pytest.mark.slow
def test_a_search_that_was_cut_off_goes_on(
    call: Callable[..., list[str]], edge: Edge, tmp_path: Path, slow_onnx: Callable[[float], None]
) -> None:
    """Killed once it has timed something, then by Ctrl-C and by SIGTERM once it has gone on."""
    output, work = tmp_path / "best", tmp_path / "best.work"
    slow_onnx(0.01)  # so that no search ends before it is cut off
    output.mkdir()
    (output / "edge.json").write_text("what was there")
    arguments = call(output, "--target-ms", "0.01", "--force")
    stops = (
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGINT, 130, "edge: interrupted"),
        (signal.SIGTERM, 128 + signal.SIGTERM, "edge: stopped by SIGTERM: the results so far are"),
    )
    for number, status, said in stops:
        before = entries(work)
        ended, err = cut_off(arguments, work, number, len(before))
        assert ended == status, err
        assert said in err
        assert ("going on with" in err) is bool(before)
        assert (output / "edge.json").read_text() == "what was there"
        assert entries(work).items() >= before.items()  # nothing is done again
    before = entries(work)
    finished = edge(*arguments)
    assert finished.status == 3, finished.err
    assert f"going on with {len(before)} results" in finished.err
    assert entries(work).items() > before.items()


def cut_off(arguments: list[str], work: Path, number: int, known: int) -> tuple[int, str]:
    """Signal a search that has timed something that was not known before: its status and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(entries(work)) <= known or not any(n.startswith("timed") for n in entries(work)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


def test_a_candidate_that_fails_or_crashes_is_noted_and_passed_over(
    artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    rows = read_rows(dataset / "dev.jsonl")
    good, broken = (
        Candidate(ArtifactSpec("onnx", "int8")),
        Candidate(ArtifactSpec("onnx", "float32")),
    )
    crashing = Candidate(ArtifactSpec("onnx", "int4"))
    with TrialStore.open(tmp_path / "work", {}, tmp_path / "out") as store:
        for one in (good, broken, crashing):
            shutil.copytree(artifacts / "onnx-int8", store.artifact(one.spec))
        model = store.artifact(broken.spec) / "model.onnx"
        model.write_bytes(b"\x00" * model.stat().st_size)
        runner = TrialRunner(store, rows, {}, lambda event: kill_timer(event.message, crashing))
        with contextlib.closing(runner):
            done = runner.time_interleaved([good, crashing, broken], 32)
        assert list(done) == [good]
        assert len(done[good].answers) == 32
        assert "SIGKILL" in runner.failures[crashing.name]
        assert runner.failures[broken.name]
        again = TrialRunner(store, rows, {}, lambda event: pytest.fail(event.message))
        assert list(again.time_interleaved([good, crashing, broken], 32)) == [good]
        assert again.failures == runner.failures


def kill_timer(event: str, candidate: Candidate) -> None:
    """Once the next one is started, the process of `candidate` crashes."""
    if candidate.name in event:
        return
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = status.read_text().split("\0")
            parent = (status.parent / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        ours = "edge.bench.compiler.timing_worker" in words and int(parent) == os.getpid()
        if ours and json.loads(words[-2])["quantization"] == candidate.spec.quantization:
            os.kill(int(status.parent.name), signal.SIGKILL)


def test_a_full_disk_ends_the_search() -> None:
    """Nothing else could be written either; other errors only cost the candidate."""
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = EdgeError("out/model.onnx: no space left on the disk; nothing was written there")
    wrapped.__cause__ = full
    for error in (full, wrapped):
        assert failure(error)["status"] == 1
        assert "space left" in failure(error)["fatal"]
    assert failure(ParityError("too far")) == {"error": "too far"}
    assert failure(MemoryError("no memory")) == {"error": "MemoryError: no memory"}


def test_bad_input_is_refused_before_any_work(
    trained: Path, dataset: Path, assert_refused: Edge, tmp_path: Path
) -> None:
    output, dev = tmp_path / "best", dataset / "dev.jsonl"
    inputs = tmp_path / "inputs.jsonl"
    inputs.write_text('{"input": "a question"}\n')
    start = ("compile", trained, "--output", output)
    assert "inputs.jsonl:1: no column 'target'" in assert_refused(*start, "--data", inputs)
    start = (*start, "--data", dev)
    assert "metric" in assert_refused(*start, "--metric", "f1")
    assert "fraction" in assert_refused(*start, "--max-drop", "50")
    assert "--target-ms" in assert_refused(*start, "--target-ms", "0")
    assert "the same file" in assert_refused(*start, "--shortlist", dev)
    assert "Did you mean 'onnx'" in assert_refused(*start, "--format", "onxx")
    assert "--threads" in assert_refused(*start, "--threads-to-try", "2000")
    assert "--output" in assert_refused("compile", trained, "--data", dev, "--output", ".")
    assert "no such model folder" in assert_refused(
        "compile", tmp_path / "none", "--output", output, "--data", dev
    )
    for number in ("999999999999999999999", "1048577"):
        refused = assert_refused(*start, "--max-input-tokens", number)
        assert "--max-input-tokens must be from 1 to 1,048,576" in refused
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.jsonl"]


def test_rows_of_shortlists_are_read_before_any_work(
    trained: Path, dataset: Path, assert_refused: Edge, tmp_path: Path
) -> None:
    start = ("compile", trained, "-o", tmp_path / "best", "--data", dataset / "dev.jsonl")
    empty, noise, pipe = (tmp_path / name for name in ("empty.jsonl", "noise.jsonl", "pipe.jsonl"))
    empty.touch()
    noise.write_bytes(bytes(range(256)))
    os.mkfifo(pipe)
    assert "empty.jsonl: the file has no rows" in assert_refused(*start, "--shortlist", empty)
    assert "noise.jsonl:1: " in assert_refused(*start, "--shortlist", noise)
    only_dev = tmp_path / "only_dev"
    only_dev.mkdir()
    (only_dev / "dev.jsonl").write_bytes((dataset / "dev.jsonl").read_bytes())
    assert "no train.jsonl" in assert_refused(*start, "--shortlist", only_dev)
    for path in (pipe, "/dev/zero"):
        assert f"{path}: is not a regular file" in assert_refused(*start, "--shortlist", path)
    assert not list(tmp_path.glob("best*"))


@pytest.mark.slow
def test_a_quarter_of_the_time_finds_as_good_an_artifact(
    shared: Path, edge: Edge, tmp_path: Path
) -> None:
    """The claim of docs/compile.md; for a machine on which nothing else runs."""
    model, data = shared / "models" / "disfl-tiny", shared / "data" / "disfl_qa"
    reports = {}
    for name, more in (("searched", ()), ("exhaustive", ("--exhaustive",))):
        output = tmp_path / name
        ended = edge("compile", model, "--data", data, "--output", output, *more)
        assert ended.status == 0, ended.err
        reports[name] = json.loads((tmp_path / f"{name}.report.json").read_text(encoding="utf-8"))
    assert reports["searched"]["seconds"] <= 0.25 * reports["exhaustive"]["seconds"]
    compared = tmp_path / "compared.json"
    edge("bench", tmp_path, "--data", data, "--runs", 1000, "--json", compared)
    results = json.loads(compared.read_text(encoding="utf-8"))["results"]
    p50 = {Path(one["artifact"]).name: one["latency"]["p50"] for one in results}
    assert p50["searched"] <= 1.05 * p50["exhaustive"]
