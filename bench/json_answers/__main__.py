"""The program `python -m edge.bench.json_answers`: rows, a training, exports, and a line for each.

Trains a T5 from scratch or, with --base, a low-rank adapter of another model on rows of JSON. Exits
with 3 if an artifact answers with valid JSON on less than 99 % of the dev rows. With --words it
trains a base for that: the same commands, with their words in quotes as targets.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edge.bench.json_answers.rows import command_as_json, command_as_words, write_command_rows
from edge.bench.json_answers.validity import Validity, measure_artifact
from edge.bench.timing.machine import machine_info
from edge.runtime.errors import EdgeError, OutputExistsError
from edge.runtime.platform.atomic import new_file
from edge.runtime.rows import read_rows
from edge.train.events import Event

MIN_VALID = 0.99
_MAX_TOKENS = 128  # of inputs and targets
_EVAL_ROWS = 200  # for the scores in training.json; the artifacts answer all dev rows
_SCRATCH: Mapping[str, Any] = {"from_scratch": "tiny", "rename_ratio": 0.3}
_LORA: Mapping[str, Any] = {
    "method": "lora",
    "lora_rank": 32,
    "lora_dropout": 0.0,
    "learning_rate": 7e-4,
    "batch_size": 32,
    "adam_beta2": 0.99,
    "dropout": 0.0,
    "ema_ratio": 0.2,
    "eval_steps": 0,
    "rename_ratio": 0.3,
}


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True,
              help="New folder for rows, model and artifacts.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue a training that was stopped.")
@click.option("--base", help="Train a low-rank adapter of this model, not a new model.")
@click.option("--words", is_flag=True, help="Train a base: words in quotes, not JSON. No export.")
@click.option("--format", "formats", multiple=True, default=("onnx",), show_default=True)
@click.option("--quantize", default="int8", show_default=True)
@click.option("--max-characters", default=120, show_default=True, help="Longest target of a row.")
@click.option("--max-args", type=int, help="Most arguments of a command.")
@click.option("--limit", "-n", type=int, help="Use only so many rows of each split.")
@click.option("--epochs", type=float, default=6.0, show_default=True)
@click.option("--time-limit", help="Plan the training for this time, e.g. 20m, not for --epochs.")
@click.option("--threads", default=1, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures.")
def main(
    data: Path,
    output: Path,
    resume: bool,
    base: str | None,
    words: bool,
    formats: tuple[str, ...],
    quantize: str,
    max_characters: int,
    max_args: int | None,
    limit: int | None,
    epochs: float,
    time_limit: str | None,
    threads: int,
    json_file: Path | None,
) -> None:
    """Train a model to write JSON, on the commands of DATA, a folder with train and dev files."""
    settings = dict(_SCRATCH if base is None else {**_LORA, "model": base})
    settings |= {"threads": threads}
    settings |= {"epochs": epochs} if time_limit is None else {"time_limit": time_limit}
    try:
        if output.exists() and not resume:
            raise OutputExistsError(f"{output} exists; name a new folder, or use --resume")
        counts = write_command_rows(
            data,
            output / "rows",
            max_characters=max_characters,
            max_args=max_args,
            limit=limit,
            write=command_as_words if words else command_as_json,
        )
        click.echo(f"{counts['train']:,} rows for training, {counts['dev']:,} for the check")
        figures = _train(output, settings, resume=resume)
        found = [] if words else _answer(output, formats, quantize, threads)
    except EdgeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if json_file is not None:
        document = {"machine": machine_info(), "rows": counts, **figures}
        document["artifacts"] = [asdict(one) for one in found]
        with new_file(json_file) as staging:
            staging.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if all(one.valid_ratio >= MIN_VALID for one in found) else 3)


def _train(output: Path, settings: dict[str, Any], *, resume: bool) -> dict[str, Any]:
    """Train the model, and return what was done and how long it took."""
    from edge.train import TrainConfig, train

    config = TrainConfig(
        data=output / "rows",
        output=output / "model",
        max_source_length=_MAX_TOKENS,
        max_target_length=_MAX_TOKENS,
        max_eval_rows=_EVAL_ROWS,
        resume=resume,
        **settings,
    )
    click.echo(", ".join(f"{name} {value}" for name, value in settings.items()))
    started = time.perf_counter()
    result = train(config, on_event=_print)
    seconds = time.perf_counter() - started
    scores = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items())
    click.echo(f"trained in {seconds:.0f} s: {scores}")
    added = result.record["vocabulary"]["added"]
    return {"settings": settings, "seconds": seconds, "metrics": result.metrics, "added": added}


def _answer(output: Path, formats: tuple[str, ...], quantize: str, threads: int) -> list[Validity]:
    """Export the model, and print how its artifacts answer the dev rows."""
    from edge.export import export

    rows = read_rows(output / "rows" / "dev.jsonl")
    results = []
    for exported in export(output / "model", output / "artifacts", formats, quantize):
        found = measure_artifact(exported.folder, rows, max_new_tokens=_MAX_TOKENS, threads=threads)
        click.echo(_line(found))
        for text, answer in found.invalid:
            click.echo(f"  not JSON: {text!r} → {answer!r}")
        results.append(found)
    return results


def _print(event: Event) -> None:
    if event.kind in ("warning", "note"):
        click.echo(f"{event.kind}: {event.message}")
    elif event.kind == "progress" and event.message == "training" and event.loss is not None:
        click.echo(f"  {event.fraction:4.0%}  step {event.step}, loss {event.loss:.3f}")


def _line(found: Validity) -> str:
    return (
        f"{found.artifact}: {found.valid_ratio:.1%} of {found.rows:,} answers are valid JSON,"
        f" {found.equal / found.rows:.1%} the right value,"
        f" {found.verbatim / found.rows:.1%} the target verbatim; {found.unfinished} cut off"
    )


if __name__ == "__main__":
    main()
