"""`edge quickstart`: data, training, export and benchmark of a small model, in minutes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.base import Command
from edge.cli.commands.export import print_exported
from edge.cli.display.bench import measure, warn_of_few_runs
from edge.cli.display.train import TrainingDisplay, show_result
from edge.cli.options import output_option
from edge.cli.param_types import POSITIVE, SEED, Duration

if TYPE_CHECKING:
    from edge.bench.artifacts.results import Report
    from edge.export.exported import Exported
    from edge.runtime.rows import Row

_QUANTIZATIONS = ("auto", "none")


@click.command(cls=Command)
@output_option(
    "Folder for data, model, artifacts and report.", default=Path("edge-demo"), metavar="FOLDER"
)
@click.option("--force", is_flag=True, help="Replace the results of an earlier run in --output.")
@click.option(
    "--time-limit",
    type=Duration(),
    show_default="15m",
    help="Time for training, at most.",
)
@click.option("--seed", type=SEED, default=0, help="Seed of data and training.")
@click.option(
    "--target-ms", type=POSITIVE, default=100.0, metavar="MS", help="Target of the p95 latency."
)
@click.option("--runs", type=int, default=100, metavar="N", help="Timed answers per artifact.")
def command(
    output: Path, force: bool, time_limit: float | None, seed: int, target_ms: float, runs: int
) -> None:
    """Train, export, verify and benchmark a small model on synthetic questions.

    The task is to clean spoken questions: remove restarts, corrections, repeats and fillers.
    Nothing is downloaded.
    """
    from edge.bench.report.write import Outputs
    from edge.bench.timing.latency import check_runs
    from edge.cli.display.console import quiet_libraries
    from edge.runtime.platform.destination import check_writable
    from edge.runtime.registry import require

    require("edge quickstart", "export", "torch", "transformers", "safetensors")
    require("edge quickstart", "train", "datasets", "accelerate")
    require("edge quickstart", "bench", "rouge_score", "sacrebleu", "jinja2", "matplotlib")
    check_runs(runs)
    warn_of_few_runs(runs)
    quiet_libraries()
    check_writable(output)
    files = Outputs(json=output / "report.json", html=output / "report.html")
    files.check()
    started = time.monotonic()
    _prepare(output, force)
    data, model, artifacts = output / "data", output / "model", output / "artifacts"
    _heading("1/4 data", "synthetic spoken questions → the clean question")
    _write_data(data, seed)
    _heading("2/4 train", "a small T5, from scratch")
    _train(data, model, time_limit, seed)
    _heading("3/4 export", "all formats, each checked against the model")
    exported = _export(model, artifacts)
    _heading("4/4 bench", "accuracy and latency on the held-out test split")
    rows = _held_out(data)
    report = measure(
        files,
        artifacts=[one.folder for one in exported],
        data=data / "test.jsonl",
        target_ms=target_ms,
        runs=runs,
        trust_code=True,
    )
    _show_unseen(report, rows)
    click.echo(f"Total time: {time.monotonic() - started:.0f} s. All files are in {output}/.")
    _next_steps(_shown_artifact(exported))


def _prepare(output: Path, force: bool) -> None:
    """Make `output` an empty folder. With `force`, remove the files of an earlier quickstart.

    Those of a quickstart that was interrupted are removed in any case.

    Raises:
        OutputExistsError: The folder has files, and `force` is off or quickstart did not write
            them.
    """
    import shutil

    from edge.runtime.errors import OutputExistsError
    from edge.runtime.platform.destination import check_destination, check_writable
    from edge.runtime.platform.os_errors import readable_os_errors
    from edge.train.run_folder import is_running

    known = ("data", "model", "model.run", "artifacts", "report.json", "report.html")
    found = {path.name for path in output.iterdir()} if output.is_dir() else set()
    unfinished = bool(found) and found <= {*known} and "report.json" not in found
    if is_running(output / "model.run"):
        raise OutputExistsError(f"{output}: another edge quickstart is training there")
    if (force or unfinished) and output.is_dir():
        check_writable(output)
    else:
        check_destination(output, force=force)
    if found:
        others = sorted(found - {*known})
        if others:
            raise OutputExistsError(
                f"{output} contains {others[0]!r}, which is not from edge quickstart;"
                " choose another --output"
            )
    with readable_os_errors(output):
        for name in known:
            path = output / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        output.mkdir(parents=True, exist_ok=True)


def _write_data(data: Path, seed: int) -> None:
    from edge.runtime.rows import read_rows
    from edge.train.synthetic import write_dataset

    files = write_dataset(data, seed=seed)
    for split, path in files.items():
        click.echo(f"{split:6} {len(read_rows(path)):6} rows  {path}")
    example = read_rows(files["test"])[0]
    click.echo(f"e.g.   {example.input}\n   →   {example.target}")


def _train(data: Path, model: Path, time_limit: float | None, seed: int) -> None:
    import dataclasses

    from edge.train.loop.signals import StoppedError
    from edge.train.model.from_scratch import quickstart_config
    from edge.train.trainer import train

    config = dataclasses.replace(quickstart_config(data, model), seed=seed)
    if time_limit is not None:
        config = dataclasses.replace(config, time_limit=time_limit)
    try:
        with TrainingDisplay() as display:
            result = train(config, on_event=display.on_event)
    except StoppedError as stopped:
        raise KeyboardInterrupt from stopped
    show_result(result, next_step=False)


def _export(model: Path, artifacts: Path) -> list[Exported]:
    from edge.cli.display.console import status
    from edge.export.api import publish_all
    from edge.export.publish import Publisher, plan_targets
    from edge.export.source import SourceModel

    targets = plan_targets("all", _QUANTIZATIONS)
    with status("exporting") as progress:
        return publish_all(
            Publisher(SourceModel.open(model)),
            targets,
            artifacts,
            on_start=lambda target: progress(f"exporting {target.name}"),
            on_done=print_exported,
        )


def _held_out(data: Path) -> list[Row]:
    from edge.runtime.rows import read_rows

    return read_rows(data / "test.jsonl")


def _show_unseen(report: Report, rows: list[Row]) -> None:
    from edge.train.metrics import exact_match

    for kind, unseen in (("words all seen in training", False), ("with words never seen", True)):
        indices = [i for i, row in enumerate(rows) if bool(row.fields.get("unseen")) is unseen]
        scores = [
            exact_match(
                [result.accuracy.predictions[i] for i in indices],
                [rows[i].target or "" for i in indices],
            )
            for result in report.results
            if result.accuracy is not None
        ]
        if not scores:
            continue
        low, high = min(scores), max(scores)
        click.echo(
            f"Exact match, {kind} ({len(indices)} rows): {low:.1%}"
            + (f" to {high:.1%}, depending on the artifact" if high > low else "")
        )


def _shown_artifact(exported: Sequence[Exported]) -> Path:
    """onnx-int8, or without ONNX's libraries the artifact that is probably the fastest."""
    from edge.cli.commands.export import fastest

    named = [one.folder for one in exported if one.folder.name == "onnx-int8"]
    return named[0] if named else fastest(exported)


def _next_steps(artifact: Path) -> None:
    click.echo(
        "\nNext, on your own rows (JSON Lines with input and target, as my-data/train.jsonl and"
        " my-data/dev.jsonl):\n"
        "  edge train my-data --model google/flan-t5-small --output my-model\n"
        "  edge export my-model --format all --output my-artifacts\n"
        "  edge bench my-artifacts --data my-data/dev.jsonl --target-ms 100\n"
        f"\nOr try this model:  edge run {shlex.quote(str(artifact))}"
        ' "when did uh when was the bridge built"'
    )


def _heading(step: str, what: str) -> None:
    click.echo(f"\n== {step}: {what}")
