"""The training record: what was trained, on what, how, and what came of it.

`training.json` holds everything; the export reads prompt_template, max_source_length and
max_target_length from it. `training.md` holds the same run as one row of a markdown table.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
    """Of Python and the packages that decide the outcome; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_record(folder: Path, record: dict[str, object]) -> None:
    """Write training.json and training.md into `folder`."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RECORD_NAME).write_text(text + "\n", encoding="utf-8")
    (folder / "training.md").write_text(markdown_row(record), encoding="utf-8")


def markdown_row(record: dict[str, object]) -> str:
    """A markdown table with the run as its one row."""
    data, run, figures, bands = (
        _part(record, name) for name in ("data", "run", "eval", "fit_bands")
    )
    cells = (
        record["model"],
        data["path"],
        data["train_rows"],
        f"{run['epochs']:.2f}",
        f"{run['train_runtime']:.1f}",
        f"{run['samples_per_second']:.1f}",
        f"{figures['eval_loss']:.3f} ({bands['eval_loss']})",
        f"{figures['rouge_l']:.3f} ({bands['rouge_l']})",
        f"{figures['exact_match']:.3f}",
        f"{figures['bleu']:.1f}",
    )
    lines = (_COLUMNS, ("---",) * len(_COLUMNS), cells)
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _part(record: dict[str, object], name: str) -> dict[str, object]:
    part = record[name]
    assert isinstance(part, dict)
    return part


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
