"""The model folder that a run leaves: weights, tokenizer, record, log and curves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.artifact.text_fingerprint import TextFingerprint
from edge.runtime.errors import EdgeError
from edge.runtime.platform.atomic import new_folder
from edge.runtime.rows import Prompt
from edge.train.model.loading import parameter_count, quiet
from edge.train.output.record import SCHEMA, versions, write_record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from edge.train.config import TrainConfig
    from edge.train.data import Splits
    from edge.train.device import DeviceConfig
    from edge.train.evaluate import Evaluation
    from edge.train.loop import LoopResult
    from edge.train.model.loading import Trainable
    from edge.train.run_folder import RunFolder


def run_details(
    config: TrainConfig, machine: DeviceConfig, splits: Splits, trainable: Trainable
) -> dict[str, object]:
    import torch

    return {
        **config.hyperparameters(),
        "device": machine.device,
        "precision": machine.precision,
        "threads": torch.get_num_threads(),
        "dropout": trainable.model.config.dropout_rate,
        "vocab_size": trainable.model.config.vocab_size,
        "parameters": parameter_count(trainable.model),
        "trainable_parameters": _trained_share(trainable),
        **_adapter_details(config),
        "train_rows": len(splits.train),
        "dev_rows": len(splits.dev),
    }


def _trained_share(trainable: Trainable) -> str:
    trained = parameter_count(trainable.model, trained=True)
    return f"{trained:,} ({trained / parameter_count(trainable.model):.2%})"


def _adapter_details(config: TrainConfig) -> dict[str, object]:
    if config.method == "full":
        return {}
    assert config.lora_alpha is not None
    return {"lora_alpha / lora_rank": round(config.lora_alpha / config.lora_rank, 4)}


def training_record(
    config: TrainConfig,
    splits: Splits,
    trainable: Trainable,
    loop: LoopResult,
    evaluation: Evaluation,
    eval_seconds: float,
    details: dict[str, object],
) -> dict[str, object]:
    """The run as training.json holds it; `details` as `run_details` gave them before training."""
    return {
        "schema": SCHEMA,
        "model": trainable.name,
        "parameters": parameter_count(trainable.model),
        "prompt_template": Prompt.parse(config.prefix).template,
        "max_source_length": config.max_source_length,
        "max_target_length": config.max_target_length,
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
            "batch_parts": loop.parts,
            "eval_runtime": round(eval_seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        "eval": _rounded(evaluation.metrics),
        "eval_by_task": {task: _rounded(found) for task, found in evaluation.by_task.items()},
        "fit_bands": evaluation.bands,
        "padding": {name: round(value, 4) for name, value in asdict(loop.padding).items()},
        "hyperparameters": details,
        "seed": config.seed,
        "device": details["device"],
        "versions": versions(),
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in figures.items()}


def depth_row(which: str, model: PreTrainedModel, evaluation: Evaluation) -> dict[str, object]:
    """One line of the report of accuracy against depth."""
    layers = model.config.num_decoder_layers
    return {"model": which, "decoder_layers": layers, **_rounded(evaluation.metrics)}


def save_output(
    output: Path,
    config: TrainConfig,
    trainable: Trainable,
    record: dict[str, object],
    run: RunFolder,
) -> None:
    """Write the complete folder; it appears at once.

    Raises:
        EdgeError: the disk is full, or the tokenizer has no tokenizer.json.
    """
    from edge.train.output.curves import write_curves

    with new_folder(output, force=config.force) as folder:
        _write_model(folder, trainable)
        if not (folder / TOKENIZER_NAME).is_file():
            raise EdgeError(f"{output}: the tokenizer can't be saved as tokenizer.json")
        path = TextFingerprint.of(folder / TOKENIZER_NAME, str(record["prompt_template"]))
        record["text_path"] = path.as_record()
        write_record(folder, record)
        shutil.copy(run.log.path, folder)
        write_curves(run.log.path, folder / "curves.png")
        for name in ("adapter", "tensorboard"):
            if (run.path / name).is_dir():
                shutil.copytree(run.path / name, folder / name)


def save_model(output: Path, trainable: Trainable, *, force: bool) -> Path:
    """The model as it is, with its tokenizer; of a model with an adapter, the adapter alone."""
    with new_folder(output, force=force) as folder:
        _write_model(folder, trainable)
    return output


def _write_model(folder: Path, trainable: Trainable) -> None:
    # A full disk, also in safetensors' words, is made readable by `new_folder`.
    with quiet():
        trainable.model.save_pretrained(folder)
        trainable.tokenizer.save_pretrained(folder)
