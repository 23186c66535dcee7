"""`edge export`: a model folder compiled to artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.options import column_options, generation_options, given

if TYPE_CHECKING:
    from edge.export.publish import Exported, Publisher, Target

FORMATS = ("torchscript", "onnx", "ctranslate2", "gguf", "all")


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.option("--format", "format_name", required=True, help=f"One of: {', '.join(FORMATS)}.")
@click.option(
    "--quantize",
    "quantizations",
    multiple=True,
    default=("auto",),
    help="auto, none, int8, or a format's own (docs/formats.md); repeatable.",
)
@click.option(
    "--layout",
    type=click.Choice(["edge", "hub"]),
    default="edge",
    help="hub: files for Optimum and transformers.js in place of an artifact (onnx only).",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The artifact folder; for several artifacts the folder that holds them.",
)
@click.option("--force", is_flag=True, help="Replace an existing artifact once the new is ready.")
@click.option("--revision", help="Branch, tag or commit of a hub model.")
@click.option(
    "--prefix", help="Prompt around each input, such as 'rewrite: ' or '[{task}] {input}'."
)
@click.option("--max-input-tokens", type=click.IntRange(1), help="Longest input that is taken.")
@click.option("--max-new-tokens-limit", type=click.IntRange(1), help="Longest answer to be asked.")
@click.option(
    "--max-error", type=float, help="Accept log-probabilities off by at most this (nats)."
)
@click.option("--mean-error", type=float, help="Accept a mean log-probability error up to this.")
@click.option(
    "--shortlist",
    type=click.Path(path_type=Path),
    help="Rows with targets: answers choose among their tokens and the input's own (onnx).",
)
@click.option(
    "--shortlist-frequent",
    type=click.IntRange(0),
    help="Ids listed in any case, from the vocabulary's most frequent; default: an eighth, ≤ 4000.",
)
@column_options
@click.option(
    "--tune", is_flag=True, help="Then choose threads and engine settings, as edge tune does."
)
@generation_options
def command(
    model: str,
    format_name: str,
    quantizations: tuple[str, ...],
    layout: str,
    output: Path,
    force: bool,
    revision: str | None,
    prefix: str | None,
    max_input_tokens: int | None,
    max_new_tokens_limit: int | None,
    max_error: float | None,
    mean_error: float | None,
    shortlist: Path | None,
    shortlist_frequent: int | None,
    input_column: str,
    target_column: str,
    tune: bool,
    **generation: Any,
) -> None:
    """Compile MODEL (a folder or a hub id) to self-contained artifacts.

    Each artifact is checked against the model before it is published: greedy answers and
    log-probabilities on a fixed set of inputs. The generation options become its defaults.
    """
    from edge.runtime.errors import UsageError
    from edge.runtime.registry import unknown_name

    if format_name not in FORMATS:
        raise UsageError(unknown_name("format", format_name, FORMATS))
    from edge.cli.display.console import quiet_libraries, status
    from edge.export.publish import ExportOptions, plan_targets, publish_all
    from edge.export.shortlist import ShortlistRequest
    from edge.export.source import SourceModel
    from edge.runtime.rows import Columns

    if shortlist is None and shortlist_frequent is not None:
        raise UsageError("--shortlist-frequent needs --shortlist DATA")
    quiet_libraries()
    if layout == "hub" and format_name != "onnx":
        raise UsageError(f"--layout hub is for --format onnx only, not for {format_name}")
    if layout == "hub" and tune:
        raise UsageError("--tune is for artifacts, whose settings edge.runtime reads; not for hub")
    targets = plan_targets(format_name, quantizations)
    source = SourceModel.open(model, revision=revision)
    options = ExportOptions(
        prompt=prefix,
        max_input_tokens=max_input_tokens,
        max_new_tokens_limit=max_new_tokens_limit,
        generation=given(generation),
        max_error=max_error,
        mean_error=mean_error,
        shortlist=ShortlistRequest(
            shortlist, shortlist_frequent, Columns(input_column, target_column)
        )
        if shortlist
        else None,
    )
    publisher = _publisher_class(layout)(source, options)
    with status("exporting") as progress:
        done = publish_all(
            publisher,
            targets,
            output,
            force=force,
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

        tune_all([exported.folder for exported in done])
    click.echo(
        f"\nNext: edge bench {output} --data dev.jsonl, edge run {done[0].folder} 'your text'"
    )


def _publisher_class(layout: str) -> type[Publisher]:
    if layout == "hub":
        from edge.export.hub.publisher import HubPublisher

        return HubPublisher
    from edge.export.publish import Publisher

    return Publisher


def print_exported(target: Target, exported: Exported) -> None:
    """One line for one finished artifact."""
    parity = exported.parity
    made = exported.manifest.quantization
    if made != target.quantization:
        click.echo(f"{target.name}: this model does not bear it; {made} takes its place")
    click.echo(
        f"{target.format + '-' + made:24} {exported.manifest.size / 1e6:9.1f} MB"
        f"   greedy {parity.greedy_identical}/{parity.inputs} as the source"
        f"   log-prob error mean {parity.mean_error:.1e} max {parity.max_error:.1e}"
        f"   {exported.folder}"
    )
    if facts := exported.manifest.shortlist:
        from edge.export.shortlist import shortlist_line

        click.echo(f"  shortlist: {shortlist_line(facts)}")
