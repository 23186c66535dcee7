"""The model folder of a finished run: weights, tokenizer, record, log and curves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.artifact.text_fingerprint import TextFingerprint
from edge.runtime.errors import EdgeError
from edge.runtime.platform.atomic import new_folder
from edge.runtime.rows import Prompt
from edge.train.model.loading import parameter_count, quiet
from edge.train.output.curves import write_curves
from edge.train.output.model_card import CARD_NAME, trained_card
from edge.train.output.record import SCHEMA, versions, write_record

if TYPE_CHECKING:
    from edge.train.config import RunConfig
    from edge.train.data import Splits
    from edge.train.device import DeviceConfig
    from edge.train.evaluate import Evaluation
    from edge.train.loop import LoopResult
    from edge.train.model.loading import Trainable
    from edge.train.run_folder import RunFolder


def run_details(
    config: RunConfig,
    device_config: DeviceConfig,
    splits: Splits,
    trainable: Trainable,
    processes: int = 1,
) -> dict[str, object]:
    """All hyperparameters, and what is known before training about device, model and data."""
    import torch

    model = trainable.model
    total, trained = parameter_count(model), parameter_count(model, trained=True)
    details: dict[str, object] = {
        **config.hyperparameters(),
        "device": device_config.device,
        "precision": device_config.precision,
        "threads": torch.get_num_threads(),
        "dropout": model.config.dropout_rate,
        "vocab_size": model.config.vocab_size,
        "parameters": total,
        "trainable_parameters": f"{trained:,} ({trained / total:.2%})",
    }
    if config.method != "full":
        details["lora_alpha / lora_rank"] = round(config.lora_alpha / config.lora_rank, 4)
    details |= {"train_rows": len(splits.train), "dev_rows": len(splits.dev)}
    if processes > 1:
        details["processes"] = processes
    return details


def training_record(
    config: RunConfig,
    splits: Splits,
    trainable: Trainable,
    loop: LoopResult,
    evaluation: Evaluation,
    eval_seconds: float,
    details: Mapping[str, object],
) -> dict[str, Any]:
    """The content of training.json. `details` are those of `run_details`."""
    return {
        "schema": SCHEMA,
        "model": trainable.name,
        "revision": trainable.revision,
        "parameters": parameter_count(trainable.model),
        "prompt_template": Prompt.parse(config.prefix).template,
        "max_source_length": config.max_source_length,
        "max_target_length": config.max_target_length,
        "vocabulary": {"policy": config.vocabulary, "added": trainable.added_characters},
        "data": {
            "path": str(config.data),
            "bytes": splits.bytes,
            "train_rows": len(splits.train),
            "dev_rows": len(splits.dev),
            "evaluated_rows": len(evaluation.predictions),
        },
        "run": {
            "epochs": round(loop.epochs, 4),
            "steps": loop.steps,
            "train_runtime": round(loop.seconds, 3),
            "samples_per_second": round(loop.rows / loop.seconds, 3),
            "train_loss": round(loop.loss, 5),
            "tokens_per_second": round(loop.tokens / loop.seconds, 1),
            "padding_waste": round(loop.padding_waste, 4),
            "micro_batches": loop.micro_batches,
            "eval_runtime": round(eval_seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        "eval": _rounded(evaluation.metrics),
        "eval_by_task": {task: _rounded(found) for task, found in evaluation.by_task.items()},
        "fit_bands": evaluation.bands,
        "padding": {name: round(value, 4) for name, value in asdict(loop.padding).items()},
        "hyperparameters": dict(details),
        "seed": config.seed,
        "device": details["device"],
        "versions": versions(),
    }


def _rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in metrics.items()}


def save_output(
    output: Path,
    trainable: Trainable,
    record: dict[str, Any],
    run: RunFolder,
    *,
    force: bool,
) -> None:
    """Write the model folder; it appears when it is complete.

    Adds the text fingerprint of the tokenizer to `record`.

    Raises:
        EdgeError: The disk is full, or the tokenizer has no tokenizer.json.
    """
    with new_folder(output, force=force) as folder:
        _write_model(folder, trainable)
        if not (folder / TOKENIZER_NAME).is_file():
            raise EdgeError(f"{output}: the tokenizer can't be saved as tokenizer.json")
        fingerprint = TextFingerprint.of(folder / TOKENIZER_NAME, record["prompt_template"])
        record["text_path"] = fingerprint.as_record()
        write_record(folder, record)
        trained_card(record).save(folder / CARD_NAME)
        shutil.copy(run.log.path, folder)
        write_curves(run.log.path, folder / "curves.png")
        for name in ("adapter", "tensorboard"):
            if (run.path / name).is_dir():
                shutil.copytree(run.path / name, folder / name)


def save_model(output: Path, trainable: Trainable) -> None:
    """Write the model as it is with its tokenizer, replacing `output`.

    Only the adapter of a model that has one.
    """
    with new_folder(output, force=True) as folder:
        _write_model(folder, trainable)


def _write_model(folder: Path, trainable: Trainable) -> None:
    # `new_folder` turns the error of a full disk, also safetensors' own, into a readable one.
    with quiet():
        trainable.model.save_pretrained(folder)
        trainable.tokenizer.save_pretrained(folder)
