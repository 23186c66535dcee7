"""`edge info`: what an artifact is, from its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.text import Text


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def command(artifact: Path, as_json: bool) -> None:
    """Show what ARTIFACT is: format, shape, source, limits, parity, files."""
    from edge.runtime.artifact import Artifact

    manifest = Artifact.open(artifact).manifest
    if as_json:
        click.echo(manifest.to_json(), nl=False)
        return
    from rich.table import Table

    from edge.cli.display.console import stdout_console

    shape, parity = manifest.architecture, manifest.parity
    feed_forward = f"{'gated ' if shape.is_gated_act else ''}{shape.dense_act_fn} {shape.d_ff}"
    lines = {
        "format": f"{manifest.format}, {manifest.quantization}",
        "size": f"{manifest.size / 1e6:.1f} MB in {len(manifest.files)} files",
        "source": manifest.source.model + (f" @ {r}" if (r := manifest.source.revision) else ""),
        "source weights": f"sha256 {manifest.source.weights_sha256}",
        "shape": (
            f"{shape.model_type}: {shape.num_layers} encoder + {shape.num_decoder_layers} decoder"
            f" layers, width {shape.d_model}, {shape.num_heads} heads × {shape.d_kv},"
            f" feed-forward {feed_forward}"
        ),
        "vocabulary": f"{manifest.tokenizer.pieces} pieces, {shape.vocab_size} ids",
        "head": ("tied" if shape.tied_head else "own")
        + (", outputs scaled" if shape.scale_decoder_outputs else ", outputs not scaled"),
        "prompt": manifest.prompt_template,
        "generation": ", ".join(f"{k}={v}" for k, v in manifest.generation.items()) or "defaults",
        "limits": (
            f"{manifest.limits.max_input_tokens} input tokens,"
            f" {manifest.limits.max_new_tokens} new tokens"
        ),
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
        else "none: searches choose among all ids",
        "runtime": _runtime(manifest.runtime),
        "chosen": _chosen(manifest.compiled),
        "made": f"{manifest.created} by edge-t5 {manifest.edge_version}",
    }
    table = Table(show_header=False, box=None, title=str(artifact), title_justify="left")
    for name, value in lines.items():
        # Plain text: brackets in a stranger's manifest are no markup.
        table.add_row(name, _plain(value))
    for name, info in manifest.files.items():
        table.add_row(f"  {name}", f"{info.size:,} bytes")
    stdout_console().print(table, markup=False)


def _runtime(settings: dict[str, Any]) -> str:
    """The engine settings, and when and on what they were tuned."""
    text = ", ".join(f"{name}={value}" for name, value in settings.items() if name != "tuned")
    tuned = settings.get("tuned")
    if isinstance(tuned, dict) and isinstance(machine := tuned.get("machine"), dict):
        text += (
            f" (tuned {tuned.get('date')} on {machine.get('cpu')}, {machine.get('cores')} cores)"
        )
    return text or "defaults"


def _chosen(facts: dict[str, Any]) -> str:
    """What `edge compile` found when it chose this artifact."""
    if not facts:
        return "by hand"
    return f"by {facts.get('command')}: {facts.get('verdict')} ({facts.get('created')})"


def _plain(value: str) -> Text:
    from rich.text import Text

    return Text(value)
