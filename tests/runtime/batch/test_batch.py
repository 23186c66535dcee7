"""`edge run` over many files: killed workers, killed runs, rows without an answer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.alone

Edge = Callable[..., Any]
Refused = Callable[..., str]
ROWS = 400  # per shard: enough for a worker to be killed while it is busy


@pytest.fixture(scope="module")
def inputs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of JSON lines, one of them in a subfolder."""
    folder = tmp_path_factory.mktemp("shards")
    lines = (dataset / "train.jsonl").read_text().splitlines(keepends=True)
    for number, name in enumerate(("a.jsonl", "b.jsonl", "sub/c.jsonl")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(lines[number * ROWS : (number + 1) * ROWS]))
    (folder / "README.md").write_text("no shard")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(artifacts: Path, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted") / "out"
    ended = subprocess.run(
        command(artifacts, inputs, output, "--workers", "1"), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "1,200 answers in 3 shards" in ended.stderr
    return output


def command(artifacts: Path, inputs: Path | str, output: Path, *more: str) -> list[str]:
    program = [sys.executable, "-m", "edge.cli", "run", str(artifacts / "onnx-int8")]
    return [*program, "--input", str(inputs), "--output", str(output), *more]


def contents(folder: Path) -> dict[str, bytes]:
    """The answers in a folder, without the run's own records."""
    files = (p for p in folder.rglob("*") if p.is_file())
    names = {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
    return {name: data for name, data in names.items() if not name.startswith("_edge/")}


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment)
    family = psutil.Process(process.pid)
    children: list[psutil.Process] = []
    try:
        yield process
    finally:
        if process.poll() is None:
            children = family.children(recursive=True)
            process.kill()
        process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        if process.stderr:
            process.stderr.close()


def worker_at(process: subprocess.Popen[str], output: Path, shard: str = "") -> psutil.Process:
    """The worker of this run that is writing the answers of a shard."""
    deadline = time.monotonic() + 90
    start = str((output / shard).parent / f".{Path(shard).name}") if shard else str(output)
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before a worker could be killed"
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                open_files = [file.path for file in child.open_files()]
                if any(p.startswith(start) and p.endswith(".partial") for p in open_files):
                    return child
        time.sleep(0.01)
    raise AssertionError("no worker started a shard")


def test_a_killed_worker_changes_no_answer(
    artifacts: Path, inputs: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with started(command(artifacts, inputs, output, "--workers", "2")) as process:
        worker_at(process, output).send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "1,200 answers in 3 shards" in errors
    assert contents(output) == contents(uninterrupted)


def test_a_killed_run_continues_with_unfinished_shards(
    artifacts: Path, inputs: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with started(command(artifacts, inputs, output, "--workers", "1")) as process:
        worker = worker_at(process, output, "b.jsonl")
        process.send_signal(signal.SIGKILL)
        process.wait()
        worker.wait(timeout=30)  # it ends when its parent does
    first = (output / "a.jsonl").stat()
    assert not (output / "b.jsonl").exists()
    again = subprocess.run(
        command(artifacts, inputs, output, "--workers", "2"), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert "(1 were finished before)" in again.stderr
    assert (output / "a.jsonl").stat().st_ino == first.st_ino
    assert contents(output) == contents(uninterrupted)


def test_a_shard_that_kills_every_worker_is_given_up(
    artifacts: Path, inputs: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with started(command(artifacts, inputs, output, "--workers", "1")) as process:
        for _ in range(3):
            worker = worker_at(process, output, "a.jsonl")
            worker.send_signal(signal.SIGKILL)
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.wait(timeout=30)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert "a.jsonl: 3 workers died on it (signal 9). The machine may be out of memory" in last
    answered = contents(output)
    assert {name: answered[name] for name in ("b.jsonl", "sub/c.jsonl")} == {
        name: contents(uninterrupted)[name] for name in ("b.jsonl", "sub/c.jsonl")
    }


def test_rows_without_an_answer_are_saved_with_their_error(
    edge: Edge, artifacts: Path, tmp_path: Path
) -> None:
    good = [{"input": f"where was um was bridge {n} built?", "n": n} for n in range(20)]
    lines = [json.dumps(row) for row in good]
    lines[3:3] = ['{"input": ', json.dumps({"text": "no input"}), '{"input": "\\ud800", "n": 7}']
    lines.append(json.dumps({"input": "word " * 700, "n": 99}))
    source = tmp_path / "in" / "rows.jsonl"
    source.parent.mkdir()
    source.write_text("\n".join(lines) + "\n")
    output = tmp_path / "out"
    arguments = ("run", artifacts / "onnx-int8", "--input", source.parent, "--output", output)
    ended = edge(*arguments)
    assert ended.status == 1
    assert ended.err.splitlines()[-1].startswith("edge: 4 of 24 rows have no answer; each is in ")
    answers = [json.loads(line) for line in (output / "rows.jsonl").open()]
    assert [row["n"] for row in answers] == list(range(20))
    assert all(row["output"] for row in answers)
    failed = [json.loads(line) for line in (output / "_failed/rows.jsonl").open()]
    assert ["rows.jsonl:4: not JSON" in row["error"] for row in failed].count(True) == 1
    assert [row.get("raw") for row in failed].count('{"input": ') == 1
    [long] = [row for row in failed if row.get("n") == 99]
    assert "rows.jsonl:24: the input has" in long["error"]
    assert {row.get("n") for row in failed} == {None, 7, 99}

    # The failed rows keep their columns, so they can be an input again.
    retried = tmp_path / "retried"
    arguments = ("run", artifacts / "onnx-int8", "--input", output / "_failed", "--on-long")
    edge(*arguments, "truncate", "--output", retried)
    [answer] = [json.loads(line) for line in (retried / "rows.jsonl").open()]
    assert answer["n"] == 99
    assert answer["output"]


def test_guardrails_apply_in_the_workers(edge: Edge, artifacts: Path, tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    source, schema = tmp_path / "in" / "rows.jsonl", tmp_path / "schema.json"
    source.parent.mkdir()
    source.write_text('{"input": "who uh who made it?", "n": 1}\n')
    schema.write_text('{"type": "object"}')
    output = tmp_path / "out"
    arguments = ("run", artifacts / "onnx-int8", "--input", source.parent, "--output", output)
    ended = edge(*arguments, "--output-schema", schema)
    assert ended.status == 1
    [failed] = [json.loads(line) for line in (output / "_failed/rows.jsonl").open()]
    assert failed["n"] == 1
    assert "not JSON" in failed["error"]
    schema.write_text("true")
    again = edge(*arguments, "--output-schema", schema)
    assert again.status == 2
    assert "other options (output)" in again.err


def test_parquet_keeps_its_types(edge: Edge, artifacts: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    texts = ["who uh who made it?", None, "  ", "when was it built?"]
    table = pa.table(
        {
            "question": texts,
            "when": pa.array([1, 2, 3, 4], pa.timestamp("ms")),
            "weight": pa.array([0.5, 1, 2, 3], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not parquet")
    output = tmp_path / "out"
    arguments = ("run", artifacts / "onnx-int8", "--input", tmp_path / "*.parquet", "--output")
    ended = edge(*arguments, output, "--input-column", "question", "--jsonl")
    assert ended.status == 1
    assert "broken.parquet: not a whole Parquet file" in ended.err.splitlines()[-1]
    answered = pq.read_table(output / "rows.parquet")
    assert answered.schema.names == ["question", "when", "weight", "output", "generation"]
    assert answered.schema.field("when").type == pa.timestamp("ms")
    assert answered.column("weight").to_pylist() == [0.5, 3]
    alone = edge("run", artifacts / "onnx-int8", texts[0])
    assert answered.column("output")[0].as_py() == alone.out.rstrip("\n")
    assert json.loads(answered.column("generation")[0].as_py())["finish_reason"] == "eos"
    failed = [json.loads(line) for line in (output / "_failed/rows.parquet.jsonl").open()]
    assert [row["when"] for row in failed] == [
        "1970-01-01 00:00:00.002000",
        "1970-01-01 00:00:00.003000",
    ]
    assert "rows.parquet: row 2: column 'question' must be text, not NoneType" in failed[0]["error"]


def test_an_output_folder_belongs_to_one_run(
    edge: Edge, assert_refused: Refused, artifacts: Path, inputs: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in" / "one.jsonl"
    source.parent.mkdir()
    source.write_text('{"input": "who uh who made it?"}\n')
    output = tmp_path / "out"
    arguments = ("run", artifacts / "onnx-int8", "--input", source.parent, "--output", output)
    assert edge(*arguments).status == 0
    before = (output / "one.jsonl").read_text()
    assert "other options (num_beams)" in assert_refused(*arguments, "--num-beams", 2)
    assert edge(*arguments, "--num-beams", 2, "--max-new-tokens", 2, "--force").status == 0
    assert (output / "one.jsonl").read_text() != before
    # A shard is answered again after its source has changed.
    assert edge(*arguments, "--force").status == 0
    source.write_text('{"input": "who uh who made it?"}\n{"input": "when was it built?"}\n')
    assert "2 answers in 1 shards (0 were" in edge(*arguments).err

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert "contains other files" in assert_refused(*arguments[:-1], tmp_path / "mine")
    assert "is inside --input" in assert_refused(*arguments[:-1], source.parent / "out")
    assert "would replace an input" in assert_refused(*arguments[:-1], source.parent)
    pattern = ("run", arguments[1], "--input", source.parent / "*.jsonl", "--output")
    assert "contains the input" in assert_refused(*pattern, source.parent)
    assert "is a file" in assert_refused(*arguments[:-1], tmp_path / "mine" / "letter.txt")
    assert "give a folder with --output" in assert_refused(*arguments[:-2])
    assert "unknown executor 'rey'. Did you mean 'ray'" in assert_refused(
        *arguments, "--executor", "rey"
    )
    assert "no .jsonl or .parquet" in assert_refused(
        *arguments[:3], tmp_path / "mine", "--output", tmp_path / "x"
    )
    assert "this artifact's limit" in assert_refused(
        *arguments, "--force", "--max-new-tokens", 9999
    )


@pytest.mark.slow
def test_ray_survives_a_killed_worker(
    artifacts: Path, inputs: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    output = tmp_path / "out"
    arguments = command(artifacts, inputs, output, "--executor", "ray", "--workers", "2")
    with started(arguments) as process:
        worker = worker_at(process, output)
        worker.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "1,200 answers in 3 shards (0 were finished before)" in errors
    assert contents(output) == contents(uninterrupted)
    again = subprocess.run(arguments, capture_output=True, text=True)
    assert "(3 were finished before)" in again.stderr
