"""`edge info`: the manifest of an artifact, as a table or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.base import Command
from edge.cli.display.json_output import STDOUT, write_text
from edge.cli.param_types import PATH

if TYPE_CHECKING:
    from rich.table import Table

    from edge.runtime.artifact.manifest import Manifest, Source


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option(
    "--json",
    "json_file",
    type=PATH,
    is_flag=False,
    flag_value=STDOUT,
    metavar="[FILE]",
    help="Write the manifest as JSON to FILE, or to standard output.",
)
def command(artifact: Path, json_file: Path | None) -> None:
    """Show the manifest of ARTIFACT: format, shape, source, limits, parity and files."""
    from edge.runtime.artifact import Artifact
    from edge.runtime.hub.artifacts import artifact_folder

    manifest = Artifact.open(artifact_folder(artifact)).manifest
    if json_file is not None:
        write_text(manifest.to_json(), json_file)
        return
    from edge.cli.display.console import stdout_console

    stdout_console().print(_table(artifact, manifest), markup=False)


def _table(artifact: Path, manifest: Manifest) -> Table:
    from rich.table import Table
    from rich.text import Text

    from edge.runtime.errors import printable
    from edge.train.vocabulary import describe

    shape, parity = manifest.architecture, manifest.parity
    feed_forward = f"{'gated ' if shape.is_gated_act else ''}{shape.dense_act_fn} {shape.d_ff}"
    lines = {
        "format": f"{manifest.format}, {manifest.quantization}",
        "size": f"{manifest.size / 1e6:.1f} MB in {len(manifest.files)} files",
        "source": _source(manifest.source),
        "source weights": f"sha256 {manifest.source.weights_sha256}",
        "shape": (
            f"{shape.model_type}: {shape.num_layers} encoder + {shape.num_decoder_layers} decoder"
            f" layers, width {shape.d_model}, {shape.num_heads} heads × {shape.d_kv},"
            f" feed-forward {feed_forward}"
        ),
        "vocabulary": f"{manifest.tokenizer.pieces} pieces, {shape.vocab_size} ids"
        + (f"; added {describe(added)}" if (added := manifest.tokenizer.added_characters) else ""),
        "head": ("tied" if shape.tied_head else "separate")
        + (", outputs scaled" if shape.scale_decoder_outputs else ", outputs not scaled"),
        "prompt": manifest.prompt_template,
        "generation": ", ".join(f"{k}={v}" for k, v in manifest.generation.items()) or "defaults",
        "limits": (
            f"{manifest.limits.max_input_tokens} input tokens,"
            f" {manifest.limits.max_new_tokens} new tokens"
        ),
        "conditioning": _conditioning(manifest.conditioning),
        "parity": (
            f"{parity.get('greedy_identical')} of {parity.get('inputs')} greedy answers identical,"
            f" log-prob error mean {parity.get('mean_error')} max {parity.get('max_error')}"
        )
        if parity
        else "not measured",
        "shortlist": (
            f"{manifest.shortlist.get('size')} of {manifest.tokenizer.pieces} ids"
            f" (targets of {manifest.shortlist.get('data')})"
        )
        if manifest.shortlist
        else "none: answers choose from all tokens",
        "runtime": _runtime(manifest.runtime),
        "chosen": _chosen(manifest.compiled),
        "made": f"{manifest.created} by edge-t5 {manifest.edge_version}",
    }
    table = Table(show_header=False, box=None, title=str(artifact), title_justify="left")
    for name, value in lines.items():
        table.add_row(name, Text(printable(value)))  # Text: brackets in the manifest are not markup
    for name, info in manifest.files.items():
        table.add_row(Text(f"  {printable(name)}"), f"{info.size:,} bytes")
    return table


def _source(source: Source) -> str:
    """The model and its commit, and the hub model that it was fine-tuned from."""
    text = source.model + (f" @ {source.revision}" if source.revision else "")
    if source.base_model:
        text += f", trained from {source.base_model} @ {source.base_revision}"
    return text


def _conditioning(record: dict[str, Any]) -> str:
    """How the weights were rewritten before they were quantized, and the calibration rows."""
    if not record:
        return "none: the source's weights"
    rows = record.get("calibration")
    calibration = rows if isinstance(rows, dict) else {}
    return (
        f"{record.get('balanced_pairs')} pairs balanced, {record.get('folded_norms')} norms folded,"
        f" residual and heads rotated (seed {record.get('seed')});"
        f" {calibration.get('rows')} rows of {calibration.get('data')};"
        f" logit error {record.get('max_relative_logit_error')}"
    )


def _runtime(settings: dict[str, Any]) -> str:
    """The engine settings, and when and where they were tuned."""
    text = ", ".join(f"{name}={value}" for name, value in settings.items() if name != "tuned")
    tuned = settings.get("tuned")
    if isinstance(tuned, dict) and isinstance(machine := tuned.get("machine"), dict):
        text += (
            f" (tuned {tuned.get('date')} on {machine.get('cpu')}, {machine.get('cores')} cores)"
        )
    return text or "defaults"


def _chosen(facts: dict[str, Any]) -> str:
    """The verdict of `edge compile`, if it chose this artifact."""
    if not facts:
        return "by hand"
    return f"by {facts.get('command')}: {facts.get('verdict')} ({facts.get('created')})"
