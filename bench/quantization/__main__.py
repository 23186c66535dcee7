"""The program of `make bench-quantization`: a table per model, and whether all limits are met."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from edge.bench.quantization.accuracy import ArtifactAccuracy, measure_model
from edge.bench.quantization.outliers import LEVELS, inject_outliers
from edge.bench.timing.machine import machine_info
from edge.export.source import SourceModel
from edge.runtime.platform.atomic import new_file
from edge.runtime.rows import read_rows, split_file

_STEPS, _BATCH_SIZE = 200, 16
_LEARNING_RATE = 5e-5  # large channels would run away at a rate for fresh weights


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--limit", "-n", type=int, help="Use the first rows of dev only.")
@click.option("--seeds", type=int, default=2, show_default=True, help="Injections per level.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures.")
def main(model: Path, data: Path, limit: int | None, seeds: int, json_file: Path | None) -> None:
    """Measure quantized artifacts of MODEL with injected outliers on DATA, a folder of rows.

    Exits with 3 if a conditioned artifact misses a limit.
    """
    train_file, dev_file = split_file(data, "train"), split_file(data, "dev")
    if train_file is None or dev_file is None:
        raise click.UsageError(f"{data} must hold train.jsonl and dev.jsonl")
    rows = read_rows(dev_file)[:limit]
    missed, figures = 0, []
    with tempfile.TemporaryDirectory(prefix="edge-outliers-") as work_dir:
        for name, folder in _models(model, data, Path(work_dir), seeds):
            click.echo(f"\n{name}")
            found: list[ArtifactAccuracy] = []
            for one in measure_model(SourceModel.open(folder), rows, train_file):
                found.append(one)
                click.echo(_line(one, found[0]))
                missed += one.conditioned and not one.meets(found[0])
            figures.append({"model": name, "artifacts": [one.as_json() for one in found]})
    if json_file is not None:
        document = {"machine": machine_info(), "rows": len(rows), "models": figures}
        with new_file(json_file) as staging:
            staging.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    click.echo(f"\n{missed} conditioned artifacts miss a limit")
    sys.exit(3 if missed else 0)


def _models(model: Path, data: Path, work_dir: Path, seeds: int) -> Iterator[tuple[str, Path]]:
    """The model, its copies with outliers, and one of them trained on."""
    yield "no outliers", model
    for name, (norm, feed_forward) in LEVELS.items():
        for seed in range(seeds):
            folder = work_dir / f"{name}-{seed}"
            inject_outliers(model, folder, norm=norm, feed_forward=feed_forward, seed=seed)
            yield f"{name} ({norm:g}, {feed_forward:g}), seed {seed}", folder
            if name != "real" or seed:
                shutil.rmtree(folder)
    yield f"real, seed 0, trained on for {_STEPS} steps", _train_on(work_dir / "real-0", data)


def _train_on(folder: Path, data: Path) -> Path:
    from edge.train import TrainConfig, train

    rows = len(read_rows(data / "train.jsonl"))
    output = folder.with_name("trained")
    config = TrainConfig(
        data=data,
        output=output,
        model=str(folder),
        epochs=_STEPS * _BATCH_SIZE / rows,
        batch_size=_BATCH_SIZE,
        learning_rate=_LEARNING_RATE,
        max_source_length=128,  # the artifacts' limit, too
        max_target_length=64,
        max_eval_rows=50,
    )
    train(config, check=False)
    return output


def _line(one: ArtifactAccuracy, reference: ArtifactAccuracy) -> str:
    how = "conditioned" if one.conditioned else "as it is"
    if one.error:
        return f"  {one.artifact:18} {how:12} {one.error}"
    verdict = "" if one.meets(reference) else "   misses its limit"
    refused = "   (refused by parity)" if one.refused else ""
    return (
        f"  {one.artifact:18} {how:12} {one.exact:4} exact   loss {one.loss:.4f}"
        f"   {one.identical / one.rows:6.1%} as float32   export {one.seconds:4.1f} s"
        f"{refused}{verdict}"
    )


if __name__ == "__main__":
    main()
