"""Fine-tuning: rows in, a complete Hugging Face folder out.

`train` is the whole run; model, data, loop, evaluation and record live in modules of their own.
The loop is transformers' Seq2SeqTrainer with three things of ours: batches of similar length, a
schedule that can be planned by time, and a loss that is averaged over the labels of a whole
optimiser step.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.atomic import check_destination, new_folder
from edge.runtime.errors import EdgeError, MissingExtraError
from edge.runtime.rows import Prompt
from edge.train.config import TrainConfig
from edge.train.data import Splits, load_splits, tokenize
from edge.train.device import Machine, choose_machine
from edge.train.events import Event, OnEvent, ignore
from edge.train.models import Trainable, open_model, parameter_count, quiet
from edge.train.record import SCHEMA, versions, write_record

if TYPE_CHECKING:
    from datasets import Dataset

    from edge.train.evaluate import Evaluation
    from edge.train.loop import LoopResult


@dataclass(frozen=True)
class TrainResult:
    """metrics: eval_loss (nats per token), exact_match and rouge_l (0 to 1), bleu (0 to 100)."""

    folder: Path
    metrics: dict[str, float]
    bands: dict[str, str]
    warnings: list[str]
    record: dict[str, object]


def train(config: TrainConfig, *, on_event: OnEvent = ignore) -> TrainResult:
    """Train as `config` says and write the model folder `config.output`.

    The folder appears when it is complete: safetensors, config.json, generation_config.json,
    tokenizer.json, training.json and training.md. On any error nothing appears, and a folder that
    `force` was to replace is still there.

    Raises:
        UsageError: a hyperparameter or device that can't be used.
        DataError: rows that can't be used, or no dev split.
        ModelError: no usable T5-family model.
        OutputExistsError: the output is there already and `force` is off.
        EdgeError: training diverged, or the disk is full.
        MissingExtraError: the extra `train` is not installed.
    """
    config = config.resolved()
    output = Path(config.output)
    check_destination(output, force=config.force)  # before minutes of work, not after
    _require_extra()
    machine = choose_machine(config.device, config.precision)
    warnings: list[str] = []

    def warn(messages: list[str]) -> None:
        warnings.extend(messages)
        for message in messages:
            on_event(Event("warning", message))

    on_event(Event("stage", "reading the data"))
    splits = load_splits(config)
    config, why = config.for_rows(len(splits.train))
    warn(splits.warnings)
    with tempfile.TemporaryDirectory(prefix="edge-train-") as workplace, _threads(config.threads):
        on_event(Event("stage", "preparing model and tokenizer"))
        texts = [text for pair in splits.train for text in (pair.source, pair.target)]
        trainable = open_model(config, texts, Path(workplace))
        warn(trainable.warnings)
        train_rows, dev_rows = _tokenized(config, splits, trainable, warn)
        details = _details(config, machine, splits, trainable)
        on_event(Event("start", details=details, reasons=why))
        loop = _run_loop(config, machine, trainable, splits, train_rows, Path(workplace), on_event)
        evaluation, seconds = _evaluate(config, trainable, dev_rows, on_event)
    record = _record(config, machine, splits, trainable, loop, evaluation, seconds)
    record["warnings"] = warnings
    on_event(Event("stage", "writing the model folder"))
    _save(output, config, trainable, record)
    return TrainResult(output, evaluation.metrics, evaluation.bands, warnings, record)


def _require_extra() -> None:
    import importlib.util

    for module in ("torch", "transformers", "datasets", "accelerate", "rouge_score", "sacrebleu"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                f"training needs {module}; get it with: pip install 'edge-t5[train]'"
            )


class _threads:  # noqa: N801 - reads as the statement it is
    """Torch's thread count for a while, as it was afterwards."""

    def __init__(self, count: int | None) -> None:
        self._count = count

    def __enter__(self) -> None:
        import torch

        self._before = torch.get_num_threads()
        if self._count is not None:
            torch.set_num_threads(self._count)

    def __exit__(self, *error: object) -> None:
        import torch

        torch.set_num_threads(self._before)


def _tokenized(
    config: TrainConfig, splits: Splits, trainable: Trainable, warn: object
) -> tuple[Dataset, Dataset]:
    assert config.max_source_length is not None
    limits = {
        "max_source_length": config.max_source_length,
        "max_target_length": config.max_target_length,
    }
    tokenizer = trainable.tokenizer
    train_rows, messages = tokenize(splits.train, tokenizer, **limits, name="training")
    dev = splits.dev[: config.max_eval_rows]
    dev_rows, more = tokenize(dev, tokenizer, **limits, name="dev")
    assert callable(warn)
    warn([*messages, *more])
    return train_rows, dev_rows


def _run_loop(
    config: TrainConfig,
    machine: Machine,
    trainable: Trainable,
    splits: Splits,
    rows: Dataset,
    workplace: Path,
    on_event: OnEvent,
) -> LoopResult:
    from edge.train.augment import Renamer
    from edge.train.loop import run_loop

    renamer = None
    if config.rename_share:
        renamer = Renamer(splits.train, share=config.rename_share, seed=config.seed)
    on_event(Event("stage", "training"))
    return run_loop(config, machine, trainable, rows, renamer, workplace, on_event)


def _evaluate(
    config: TrainConfig, trainable: Trainable, rows: Dataset, on_event: OnEvent
) -> tuple[Evaluation, float]:
    from edge.train.evaluate import evaluate

    on_event(Event("stage", "evaluating"))
    start = time.monotonic()
    evaluation = evaluate(
        trainable.model,
        trainable.tokenizer,
        rows,
        batch_size=config.eval_batch_size,
        max_new_tokens=config.max_target_length,
        on_fraction=lambda fraction: on_event(Event("progress", "evaluating", fraction)),
    )
    return evaluation, time.monotonic() - start


def _details(
    config: TrainConfig, machine: Machine, splits: Splits, trainable: Trainable
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
        "train_rows": len(splits.train),
        "dev_rows": len(splits.dev),
    }


def _record(
    config: TrainConfig,
    machine: Machine,
    splits: Splits,
    trainable: Trainable,
    loop: LoopResult,
    evaluation: Evaluation,
    eval_seconds: float,
) -> dict[str, object]:
    details = _details(config, machine, splits, trainable)
    return {
        "schema": SCHEMA,
        "model": trainable.name,
        "parameters": details.pop("parameters"),
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
            "eval_runtime": round(eval_seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        "eval": {name: round(value, 6) for name, value in evaluation.metrics.items()},
        "fit_bands": evaluation.bands,
        "hyperparameters": details,
        "seed": config.seed,
        "device": machine.device,
        "versions": versions(),
    }


def _save(
    output: Path, config: TrainConfig, trainable: Trainable, record: dict[str, object]
) -> None:
    model = trainable.model
    if model.generation_config.max_new_tokens is None:
        # Without it transformers stops after 20 tokens, whatever the model was trained to write.
        model.generation_config.max_new_tokens = config.max_target_length
        model.generation_config.max_length = None
    with new_folder(output, force=config.force) as folder:
        try:
            with quiet():
                model.save_pretrained(folder)
                trainable.tokenizer.save_pretrained(folder)
        except Exception as error:
            # safetensors reports a full disk as an error of its own, with the number in its text.
            if "No space left" in str(error) or "os error 28" in str(error):
                raise EdgeError(
                    f"{output}: no space left on the disk; nothing was written"
                ) from error
            raise
        if not (folder / "tokenizer.json").is_file():
            raise EdgeError(f"{output}: the tokenizer can't be saved as tokenizer.json")
        write_record(folder, record)
