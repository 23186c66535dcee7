"""`edge info`: the manifest of an artifact, as a table or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.base import Command
from edge.cli.display.json_output import STDOUT, write_text
from edge.cli.param_types import OUTPUT, PATH

if TYPE_CHECKING:
    from edge.runtime.artifact.manifest import Manifest, Source


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option(
    "--json",
    "json_file",
    type=OUTPUT,
    is_flag=False,
    flag_value=STDOUT,
    metavar="[FILE]",
    help="Write the manifest as JSON to FILE, or to standard output.",
)
def command(artifact: Path, json_file: Path | None) -> None:
    """Show the manifest of ARTIFACT: format, shape, source, limits, parity and files.

    A folder of artifacts stands for all of them; their JSON is a list.
    """
    from edge.runtime.artifact import Artifact, find_artifacts
    from edge.runtime.hub.artifacts import artifact_folder

    folder = artifact_folder(artifact)
    found = [Artifact.open(one) for one in find_artifacts(folder)]
    if json_file is not None:
        documents = [one.manifest.to_json() for one in found]
        alone = found[0].folder == folder
        text = documents[0] if alone else f"[{','.join(map(str.rstrip, documents))}]\n"
        write_text(text, json_file)
        return
    names = (artifact if one.folder == folder else one.folder for one in found)
    pages = (_page(name, one.manifest) for name, one in zip(names, found, strict=True))
    click.echo("\n\n".join(pages))


def _page(artifact: Path, manifest: Manifest) -> str:
    """One line for each fact, however long: a hash that is cut or folded can't be searched for."""
    from edge.export.draft_head import draft_head_line
    from edge.runtime.printing import printable
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
        "draft head": draft_head_line(manifest.draft_head) if manifest.draft_head else "none",
        "runtime": _runtime(manifest.runtime),
        "chosen": _chosen(manifest),
        "made": f"{manifest.created} by edge-t5 {manifest.edge_version}",
    }
    files = {f"  {name}": f"{info.size:,} bytes" for name, info in manifest.files.items()}
    facts = [(printable(n), printable(v)) for n, v in (*lines.items(), *files.items())]
    width = max(len(name) for name, _ in facts)
    return "\n".join([printable(str(artifact)), *(f"{n:{width}}  {v}" for n, v in facts)])


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
    from edge.runtime.inference.adaptive_drafts import DraftSettings

    shown = {name: value for name, value in settings.items() if name != "tuned"}
    if (drafts := shown.get("drafts")) is not None:
        valid = DraftSettings.are_valid(drafts)
        shown["drafts"] = _drafts(drafts) if valid else "invalid (edge tune resets it)"
    text = ", ".join(f"{name}={value}" for name, value in shown.items())
    tuned = settings.get("tuned")
    if isinstance(tuned, dict) and isinstance(machine := tuned.get("machine"), dict):
        text += (
            f" (tuned {tuned.get('date')} on {machine.get('cpu')}, {machine.get('cores')} cores)"
        )
    return text or "defaults"


def _drafts(settings: dict[str, Any]) -> str:
    longest, date = settings.get("longest", 0), settings.get("date")
    return f"{longest} (measured {date})" if date else f"{longest}"


def _chosen(manifest: Manifest) -> str:
    """The verdict of `edge compile` or the comparison of `--quantize auto`, if it chose this."""
    from edge.cli.commands.export import auto_line

    facts = manifest.compiled
    if not facts:
        found = manifest.parity.get("auto")
        tried = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        return f"by --quantize {auto_line(tried)}" if tried else "by hand"
    return f"by {facts.get('command')}: {facts.get('verdict')} ({facts.get('created')})"
