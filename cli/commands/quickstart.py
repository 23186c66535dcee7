"""`edge quickstart`: the whole path on a small model, in minutes.

The only command that crosses all rooms: data → train → export → bench.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.cli.commands.bench import measure
from edge.cli.commands.export import print_exported
from edge.cli.display.train import Display, show_result

if TYPE_CHECKING:
    from edge.bench.artifacts.results import Report
    from edge.export.publish import Exported
    from edge.runtime.rows import Row

_QUANTIZATIONS = ("auto", "none")


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("edge-demo"),
    show_default=True,
    help="Folder for data, model, artifacts and report.",
)
@click.option("--force", is_flag=True, help="Replace what an earlier run left in --output.")
@click.option("--minutes", type=float, help="Minutes of training; the default learns the task.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of data and training.")
@click.option("--target-ms", type=float, default=100.0, show_default=True, help="p95 to meet.")
@click.option("--runs", default=100, show_default=True, help="Timed answers of each artifact.")
def command(
    output: Path, force: bool, minutes: float | None, seed: int, target_ms: float, runs: int
) -> None:
    """Train, export, verify and benchmark a small model on made-up questions.

    Everything is real but the data, which a generator writes: spoken questions with restarts,
    corrections, repeats and fillers → the clean question. Nothing is downloaded.
    """
    from edge.bench.artifacts.results import BenchSettings
    from edge.bench.report.write import Outputs
    from edge.cli.display.console import quiet_libraries

    quiet_libraries()
    files = Outputs(json=output / "report.json", html=output / "report.html")
    files.check()
    started = time.monotonic()
    _prepare(output, force)
    data, model, artifacts = output / "data", output / "model", output / "artifacts"
    _heading("1/4 data", "synthetic spoken questions → the clean question")
    _write_data(data, seed)
    _heading("2/4 train", "a small T5, from scratch")
    _train(data, model, minutes, seed)
    _heading("3/4 export", "all formats, each checked against the model")
    exported = _export(model, artifacts)
    _heading("4/4 bench", "accuracy and latency on the held-out test split")
    rows = _held_out(data)
    folders = [one.folder for one in exported]
    report = measure(
        folders, rows, target_ms, BenchSettings(runs=runs), files, data=data / "test.jsonl"
    )
    _show_unseen(report, rows)
    click.echo(f"Whole path: {time.monotonic() - started:.0f} s. Everything is in {output}/.")
    _next_steps(artifacts / "onnx-int8")


def _prepare(output: Path, force: bool) -> None:
    """An empty folder to work in; with force, what an earlier quickstart made is removed.

    Raises:
        OutputExistsError: it holds something, and force is off or we did not make it.
    """
    import shutil

    from edge.runtime.errors import OutputExistsError
    from edge.runtime.platform.atomic import check_destination, readable_os_errors

    check_destination(output, force=force)
    ours = ("data", "model", "model.run", "artifacts", "report.json", "report.html")
    if output.is_dir():
        strangers = sorted(path.name for path in output.iterdir() if path.name not in ours)
        if strangers:
            raise OutputExistsError(
                f"{output} holds {strangers[0]!r}, which no quickstart made:"
                " choose another --output"
            )
    with readable_os_errors(output):
        for name in ours:
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


def _train(data: Path, model: Path, minutes: float | None, seed: int) -> None:
    import dataclasses

    from edge.train.loop.signals import StoppedError
    from edge.train.model.from_scratch import quickstart_config
    from edge.train.trainer import train

    config = dataclasses.replace(quickstart_config(data, model), seed=seed)
    if minutes is not None:
        config = dataclasses.replace(config, max_minutes=minutes)
    try:
        with Display() as display:
            result = train(config, on_event=display.on_event)
    except StoppedError as stopped:
        raise KeyboardInterrupt from stopped  # a demonstration is started again, not resumed
    show_result(result, next_step=False)


def _export(model: Path, artifacts: Path) -> list[Exported]:
    from edge.cli.display.console import status
    from edge.export.publish import Publisher, plan_targets, publish_all
    from edge.export.source import SourceModel

    targets = plan_targets("all", _QUANTIZATIONS)
    # The formats in the order of `edge export --help`, and 8 bit before 32 within each.
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
        places = [i for i, row in enumerate(rows) if bool(row.fields.get("unseen")) is unseen]
        shares = [
            exact_match(
                [result.accuracy.predictions[i] for i in places],
                [rows[i].target or "" for i in places],
            )
            for result in report.results
            if result.accuracy is not None
        ]
        if not shares:
            continue
        low, high = min(shares), max(shares)
        click.echo(
            f"Exact match, {kind} ({len(places)} rows): {low:.1%}"
            + (f" to {high:.1%} over the artifacts" if high > low else "")
        )


def _next_steps(artifact: Path) -> None:
    click.echo(
        "\nNext, on your own rows (JSON lines with input and target; train.jsonl and dev.jsonl in"
        " my-data/):\n"
        "  edge train my-data --model google/flan-t5-small --output my-model\n"
        "  edge export my-model --format all --output my-artifacts\n"
        "  edge bench my-artifacts --data my-data/dev.jsonl --target-ms 100\n"
        f"\nOr talk to this one:  edge run {shlex.quote(str(artifact))}"
        ' "Where is the uh where was the bridge built?"'
    )


def _heading(step: str, what: str) -> None:
    click.echo(f"\n== {step}: {what}")
