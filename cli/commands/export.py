"""`edge export`: artifacts compiled from a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edge.cli.base import Command
from edge.cli.options import (
    FORCE_HELP,
    FORMATS,
    column_options,
    generation_options,
    given,
    output_option,
)
from edge.cli.param_types import COUNT, INPUT, PATH, FiniteFloat, completing

if TYPE_CHECKING:
    from edge.export.exported import Exported
    from edge.export.target import Target

_BY_SPEED = ("onnx", "ctranslate2", "gguf", "torchscript")  # of the engines, in docs/engines.md
_CHOICES = (*FORMATS, "all")


@click.command(cls=Command)
@click.argument("model")
@click.option(
    "-f",
    "--format",
    "formats",
    multiple=True,
    metavar="NAME",
    shell_complete=completing(_CHOICES),
    help=f"{', '.join(FORMATS)} or all; repeatable.",
)
@click.option(
    "-q",
    "--quantize",
    "quantizations",
    multiple=True,
    default=("auto",),
    metavar="NAME",
    help="auto, none, int8, or a format's own (docs/formats.md); repeatable.",
)
@output_option(
    "Folder for the artifact, or for several artifacts the folder that holds them.",
    metavar="FOLDER",
)
@click.option("--force", is_flag=True, help=FORCE_HELP)
@click.option(
    "--layout",
    type=click.Choice(["edge", "hub"]),
    default="edge",
    help="hub: write files for Optimum and transformers.js instead of an artifact (onnx).",
)
@click.option("--revision", help="Branch, tag or commit of a hub model.")
@click.option(
    "--tokenizer", type=PATH, metavar="FOLDER", help="Take the tokenizer from this folder."
)
@click.option(
    "--prefix",
    metavar="TEXT",
    help="Prompt around each input, e.g. 'rewrite: ' or '[{task}] {input}'.",
)
@click.option("--max-input-tokens", type=COUNT, metavar="N", help="Maximum tokens of an input.")
@click.option(
    "--max-new-tokens-limit",
    type=COUNT,
    metavar="N",
    help="Highest --max-new-tokens that callers may ask for.",
)
@click.option(
    "--max-error",
    type=FiniteFloat(0),
    metavar="NATS",
    show_default="by the quantization",
    help="Largest accepted log-probability error.",
)
@click.option(
    "--mean-error",
    type=FiniteFloat(0),
    metavar="NATS",
    show_default="by the quantization",
    help="Largest accepted mean log-probability error.",
)
@click.option(
    "--calibrate",
    type=INPUT,
    metavar="DATA",
    show_default="built-in English texts",
    help="Rows that the quantization is fitted to: a file, or the train split of a folder.",
)
@click.option(
    "--condition/--no-condition",
    default=True,
    help="Rewrite the weights before quantization, so that it loses less.",
)
@click.option(
    "--shortlist",
    type=INPUT,
    metavar="FILE",
    help="Rows with targets; answers choose from the tokens of these targets and of the input"
    " (onnx).",
)
@click.option(
    "--shortlist-frequent",
    type=click.IntRange(0),
    metavar="N",
    show_default="an eighth of the vocabulary, at most 4000",
    help="Always list the N most frequent tokens.",
)
@column_options
@click.option(
    "--tune", is_flag=True, help="Then choose threads and engine settings, as edge tune does."
)
@generation_options
def command(
    model: str,
    formats: tuple[str, ...],
    quantizations: tuple[str, ...],
    layout: Literal["edge", "hub"],
    output: Path,
    force: bool,
    revision: str | None,
    tokenizer: Path | None,
    prefix: str | None,
    max_input_tokens: int | None,
    max_new_tokens_limit: int | None,
    max_error: float | None,
    mean_error: float | None,
    calibrate: Path | None,
    condition: bool,
    shortlist: Path | None,
    shortlist_frequent: int | None,
    input_column: str,
    target_column: str,
    tune: bool,
    **generation: Any,
) -> None:
    """Compile MODEL, a folder or a hub id, to self-contained artifacts.

    Each artifact is checked against the model before it is published: greedy answers and
    log-probabilities on a fixed set of inputs. The generation options become its defaults.
    """
    from edge.runtime.errors import UsageError
    from edge.runtime.registry import unknown_name

    if not formats:
        raise UsageError(f"give --format, one or several of: {', '.join(_CHOICES)}")
    for name in formats:
        if name not in _CHOICES:
            raise UsageError(unknown_name("format", name, _CHOICES))
    if layout == "hub" and tune:
        raise UsageError("--tune needs an artifact; --layout hub writes none")
    answer = generation.get("max_new_tokens")
    if answer and max_new_tokens_limit and answer > max_new_tokens_limit:
        raise UsageError(
            f"--max-new-tokens {answer} is above --max-new-tokens-limit {max_new_tokens_limit}"
        )
    from edge.bench.signals import signals_end_command
    from edge.cli.display.console import quiet_libraries, status
    from edge.export import export
    from edge.export.conditioning.calibration import CalibrationRequest
    from edge.export.shortlist import ShortlistRequest
    from edge.export.target import missing_formats
    from edge.runtime.install import install_command
    from edge.runtime.rows import Columns

    quiet_libraries()
    columns = Columns(input_column, target_column)
    kept = "artifacts that are finished stay, and nothing else is left"
    with signals_end_command(lambda: kept), status("exporting") as progress:
        done = export(
            model,
            output,
            formats,
            quantizations,
            layout=layout,
            force=force,
            revision=revision,
            tokenizer=tokenizer,
            prompt=prefix,
            max_input_tokens=max_input_tokens,
            max_new_tokens_limit=max_new_tokens_limit,
            generation=given(generation),
            max_error=max_error,
            mean_error=mean_error,
            condition=condition,
            calibrate=CalibrationRequest(calibrate, columns) if calibrate else None,
            shortlist=ShortlistRequest(shortlist, shortlist_frequent, columns)
            if shortlist
            else None,
            on_start=lambda target: progress(f"exporting {target.name}"),
            on_done=print_exported,
        )
    if layout == "hub":
        click.echo(
            f"\nNext: {done[0].folder}/README.md shows how Optimum and transformers.js load it"
        )
        return
    if tune:
        from edge.cli.commands.tune import tune_all
        from edge.runtime.rows import read_rows, train_file

        rows = read_rows(train_file(calibrate), columns) if calibrate else None
        tune_all([exported.folder for exported in done], rows, trust_code=True)
    if "all" in formats:
        for name, extra in missing_formats().items():
            click.echo(f"note: {name} is left out, a library is missing: {install_command(extra)}")
    click.echo(
        f"\nNext: edge bench {output} --data dev.jsonl, edge run {fastest(done)} 'your text'"
    )


def fastest(done: Sequence[Exported]) -> Path:
    """The artifact that is probably the fastest: by --tune, else by docs/engines.md."""
    from edge.runtime.artifact.manifest import read_manifest

    def rank(exported: Exported) -> tuple[float, int, int]:
        tuned = read_manifest(exported.folder).runtime.get("tuned")
        measured = tuned["candidates"] if isinstance(tuned, dict) else ()
        p50 = min((one["p50_ms"] for one in measured), default=math.inf)
        return p50, _BY_SPEED.index(exported.manifest.format), exported.manifest.size

    return min(done, key=rank).folder


def auto_line(tried: Sequence[Mapping[str, Any]]) -> str:
    """What `--quantize auto` compared with float32 on held-out rows."""
    found = (
        f"{one.get('quantization')} keeps {one.get('identical')} of {one.get('rows')} answers"
        f" (p {one.get('loss_p')} by loss, {one.get('answers_p')} by right answers)"
        for one in tried
    )
    return f"auto: {', '.join(found)}"


def print_exported(target: Target, exported: Exported) -> None:
    """Print one line for a finished artifact."""
    parity = exported.parity
    made = exported.manifest.quantization
    if made != target.quantization:
        click.echo(f"{target.name}: failed the parity check; exported {made} instead")
    click.echo(
        f"{target.format + '-' + made:24} {exported.manifest.size / 1e6:9.1f} MB"
        f"   greedy {parity.greedy_identical}/{parity.inputs} identical"
        f"   log-prob error mean {parity.mean_error:.1e} max {parity.max_error:.1e}"
        f"   {exported.folder}"
    )
    if held_out := exported.manifest.parity.get("held_out"):
        changed = held_out["rows"] - held_out["identical"]
        click.echo(f"  {changed} of {held_out['rows']} answers to calibration rows changed")
    if tried := exported.manifest.parity.get("auto"):
        click.echo(f"  {auto_line(tried)}")
    for warning in exported.warnings:
        click.echo(f"  note: {warning}")
    if exported.needs_trust:
        click.echo("  not recorded as trusted: loading it needs --trust-code (docs/formats.md)")
    if facts := exported.manifest.shortlist:
        from edge.export.shortlist import shortlist_line

        click.echo(f"  shortlist: {shortlist_line(facts)}")
    if facts := exported.manifest.draft_head:
        from edge.export.draft_head import draft_head_line

        click.echo(f"  draft head: {draft_head_line(facts)}")
