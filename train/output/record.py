"""The training record: a run's hyperparameters, data, speed and metrics.

`training.json` holds all of it; the export reads prompt_template, max_source_length and
max_target_length. `training.md` is the same run as one row of a Markdown table.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edge.runtime.platform.json_file import dump_json
from edge.train.model.training_record import RECORD_NAME

SCHEMA = 1
_PACKAGES = ("edge-t5", "torch", "transformers", "datasets", "tokenizers", "accelerate")
_COLUMNS = (
    "model",
    "data",
    "rows",
    "epochs",
    "train_runtime (s)",
    "samples/s",
    "eval_loss",
    "ROUGE-L",
    "exact match",
    "BLEU",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that affect the result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write training.json and training.md into `folder`; a NaN loss becomes null."""
    text = dump_json(record, indent=2)
    (folder / RECORD_NAME).write_text(text + "\n", encoding="utf-8")
    (folder / "training.md").write_text(markdown_row(record), encoding="utf-8")


def markdown_row(record: Mapping[str, Any]) -> str:
    """A Markdown table with the run as its only row."""
    run, metrics, bands = record["run"], record["eval"], record["fit_bands"]
    cells = (
        record["model"],
        record["data"]["path"],
        record["data"]["train_rows"],
        f"{run['epochs']:.2f}",
        f"{run['train_runtime']:.1f}",
        f"{run['samples_per_second']:.1f}",
        f"{metrics['eval_loss']:.3f} ({bands['eval_loss']})",
        f"{metrics['rouge_l']:.3f} ({bands['rouge_l']})",
        f"{metrics['exact_match']:.3f}",
        f"{metrics['bleu']:.1f}",
    )
    lines = (_COLUMNS, ("---",) * len(_COLUMNS), cells)
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
