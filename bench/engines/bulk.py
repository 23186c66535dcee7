"""Bulk work compared: rows per second of edge, CTranslate2, Optimum and OpenVINO on many texts.

    python -m edge.bench.engines.bulk flan-t5-small --data ../shared/data/disfl_qa/train.jsonl \
        --tokenizer ../shared/t5-tokenizer/tokenizer.json

Tokenizing and decoding count. Texts are sorted by length within a chunk; a screening of the first
rows picks each engine's batch size, and whether the cores are threads of one process or a process
each. Then the engines answer every chunk in turns, and are paused while the others work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import click
import numpy as np

from edge.bench.engines.baselines.spec import Spec
from edge.bench.engines.cache import Prepared, default_cache
from edge.bench.engines.process import EngineProcess, start
from edge.bench.engines.runner import thread_counts
from edge.bench.engines.shapes import SHAPES
from edge.bench.timing.interleaved import FailureIsolated, Turn, time_interleaved
from edge.bench.timing.line_process import EngineProcessError
from edge.bench.timing.machine import machine_info
from edge.export.publish import Target
from edge.runtime.batch.job import iter_inputs
from edge.runtime.errors import EdgeError
from edge.runtime.platform.atomic import new_file

BASELINES = ("ctranslate2-int8", "optimum-int8", "openvino-int8")
BATCHES = (8, 32, 64)
_SCREENING_ROWS = 512


@dataclass(frozen=True)
class BulkSpeed:
    """Rows per second of one engine: over all rows, and percentiles over the chunks.

    If `failure` is not empty, the engine was not measured.
    """

    name: str
    processes: int = 0
    threads: int = 0
    batch: int = 0
    rows: int = 0
    rows_per_second: float = 0.0
    p5: float = 0.0
    p95: float = 0.0
    failure: str = ""


class BulkRunner(FailureIsolated):
    """The processes of one engine, their batch size, and the rows and seconds of each chunk."""

    def __init__(self, name: str, spec: Spec, new_tokens: int) -> None:
        self.name = name
        self.spec = spec
        self.batch = 0
        self.chunks: list[tuple[int, float]] = []
        self._new_tokens = new_tokens
        self._processes: list[EngineProcess] = []

    def start(self, texts: Sequence[str], max_threads: int, batches: Sequence[int]) -> None:
        """Load the engine with the processes, threads and batch size that answer `texts` fastest.

        Raises:
            EngineMissingError: a library of the engine is not installed.
            EngineFailedError: it can't load the model or answer.
        """
        best = float("inf")
        for threads in thread_counts(max_threads):
            spec = dataclasses.replace(self.spec, threads=threads)
            with contextlib.ExitStack() as stack:
                processes = []
                for _ in range(max(1, max_threads // threads)):
                    processes.append(start(spec))
                    stack.callback(processes[-1].close)
                self._ask(processes, texts[: batches[0] * len(processes)], batches[0])  # warm-up
                times = {batch: self._ask(processes, texts, batch) for batch in batches}
                fastest = min(times, key=lambda batch: times[batch])
                if times[fastest] < best:
                    best, self.batch, self.spec = times[fastest], fastest, spec
                    self.close()
                    self._processes = processes
                    stack.pop_all()

    def answer(self, texts: Sequence[str]) -> float:
        """Answer a chunk; returns its seconds.

        Raises:
            EngineFailedError: the engine reported an error, ended or timed out.
        """
        seconds = self._ask(self._processes, texts, self.batch)
        self.chunks.append((len(texts), seconds))
        return seconds

    def _ask(self, processes: Sequence[EngineProcess], texts: Sequence[str], batch: int) -> float:
        """Seconds until the last process has answered its part of `texts`."""
        tokenizer = str(self.spec.model / "tokenizer.json")
        request = {"batch": batch, "new_tokens": self._new_tokens, "tokenizer": tokenizer}
        by_length = sorted(texts, key=len)  # so that all parts take as long
        parts = [by_length[place :: len(processes)] for place in range(len(processes))]

        def ask(process: EngineProcess, part: list[str]) -> float:
            return float(process.request({**request, "texts": part})["seconds"])

        with ThreadPoolExecutor(len(processes)) as pool:
            return max(pool.map(ask, processes, parts))

    def speed(self) -> BulkSpeed:
        """The figures of all chunks."""
        if self.failure or not self.chunks:
            return BulkSpeed(self.name, failure=self.failure or "not measured: interrupted")
        rates = [rows / seconds for rows, seconds in self.chunks]
        rows = sum(rows for rows, _ in self.chunks)
        total = rows / sum(seconds for _, seconds in self.chunks)
        p5, p95 = (float(value) for value in np.percentile(rates, (5, 95)))
        processes, threads = len(self._processes), self.spec.threads
        return BulkSpeed(self.name, processes, threads, self.batch, rows, total, p5, p95)

    def close(self) -> None:
        """End the engine's processes, if they are running."""
        for process in self._processes:
            process.close()
        self._processes = []


def run_bulk(
    prepared: Prepared,
    texts: Sequence[str],
    *,
    target: Target,
    baselines: Sequence[str] = BASELINES,
    new_tokens: int = 16,
    threads: int = 2,
    chunk: int = 500,
    batches: Sequence[int] = BATCHES,
) -> list[BulkSpeed]:
    """Answer all texts with edge's artifact and the baselines, chunk by chunk in turns.

    Args:
        prepared: the model and what is made from it.
        texts: the rows.
        target: edge's artifact.
        baselines: names of `edge.bench.engines.baselines.table.BASELINES`.
        new_tokens: the exact length of every answer.
        threads: the most threads, of all processes of an engine.
        chunk: texts that an engine answers before the next has its turn.
        batches: sizes that the screening tries.
    """
    specs = {f"edge {target.name}": prepared.artifact(target)}
    specs |= {name: prepared.baseline(name) for name in baselines}
    runners = [BulkRunner(name, spec, new_tokens) for name, spec in specs.items()]
    chunks = [texts[first : first + chunk] for first in range(0, len(texts), chunk)]

    def time_turn(runner: BulkRunner, turn: Turn) -> float:
        return runner.answer(chunks[turn.first])

    try:
        for runner in runners:
            runner.guard(prepared.make, runner.spec)
            runner.guard(runner.start, texts[:_SCREENING_ROWS], threads, batches)
        time_interleaved(
            [runner for runner in runners if not runner.failure],
            time_turn,
            runs=len(chunks),
            turn_length=1,
            on_failure=_fail,
        )
        return [runner.speed() for runner in runners]
    finally:
        for runner in runners:
            runner.close()


def _fail(runner: BulkRunner, error: EngineProcessError) -> None:
    runner.fail(error)


@click.command()
@click.argument("shape", type=click.Choice([*SHAPES]))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Rows of text.")
@click.option("--input-column", default="input", show_default=True)
@click.option("--rows", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--chunk", type=click.IntRange(1), default=500, show_default=True)
@click.option("--quantize", default="int8", show_default=True, help="Of edge's onnx artifact.")
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="tokenizer.json of the model; by default pieces shorter than T5's.")  # fmt: skip
@click.option("--baseline", "baselines", multiple=True, type=click.Choice(BASELINES),
              default=BASELINES, help="Compare with this one only; repeatable.")  # fmt: skip
@click.option("--new-tokens", type=click.IntRange(1, 512), default=16, show_default=True)
@click.option("--max-threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), help="Default: ~/.cache/edge/bench.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures.")
def main(
    shape: str,
    data: Path,
    input_column: str,
    rows: int,
    chunk: int,
    quantize: str,
    tokenizer: Path | None,
    baselines: tuple[str, ...],
    new_tokens: int,
    max_threads: int,
    cache: Path | None,
    json_file: Path | None,
) -> None:
    """Compare bulk work on SHAPE with random weights; data with fewer rows is repeated."""
    try:
        read = [row.text for row in islice(iter_inputs(data, input_column), rows) if row.text]
        if not read:
            raise click.UsageError(f"{data} has no text in column {input_column}")
        texts = [read[place % len(read)] for place in range(rows)]
        prepared = Prepared.of_shape(shape, cache or default_cache(), tokenizer)
    except EdgeError as error:
        raise click.UsageError(str(error)) from None
    target = Target("onnx", quantize)
    speeds = run_bulk(
        prepared,
        texts,
        target=target,
        baselines=baselines,
        new_tokens=new_tokens,
        threads=max_threads,
        chunk=chunk,
    )
    best = max(speed.rows_per_second for speed in speeds[1:])
    for speed in speeds:
        if speed.failure:
            click.echo(f"{speed.name:20} {speed.failure}")
            continue
        ratio = f"  {speed.rows_per_second / best:.2f} × best baseline" if best else ""
        click.echo(
            f"{speed.name:20} {speed.rows_per_second:8.1f} rows/s ({speed.p5:.1f}–{speed.p95:.1f})"
            f"  {speed.processes} × {speed.threads} threads, batch {speed.batch}{ratio}"
        )
    if json_file is not None:
        values = {
            "machine": machine_info(),
            "shape": shape,
            "rows": rows,
            "new_tokens": new_tokens,
            "engines": [asdict(speed) for speed in speeds],
        }
        with new_file(json_file) as staging:
            staging.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
