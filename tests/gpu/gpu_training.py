"""Parts of the GPU suite that train: methods, memory, resume, accuracy, presets."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import torch

from edge.bench.engines.shapes import write_model
from edge.runtime.rows import Columns, read_rows
from edge.train.config import TrainConfig
from edge.train.data.pairs import data_files
from edge.train.events import Event
from edge.train.metrics import text_metrics
from edge.train.presets import build_config
from edge.train.trainer import train
from gpu_context import GIB, Context, Watch, base_run, measured_run
from gpu_runner import FailedError, Outcome, Result, SkippedError, call_in_process

T4_GIB = 14.5  # of the 16 GB on the card, what a program can use
_RUN_SECONDS = 60  # limit of each run of the resume check
_KILLED_AT = 6  # optimizer step


def prepare(context: Context, _: dict[str, Result]) -> Result:
    """Write the model with random weights that the other parts load."""
    write_model(context.sizes.shape, context.base)
    if context.tokenizer is not None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(context.tokenizer / name, context.base / name)
    size = (context.base / "model.safetensors").stat().st_size
    tokenizer = "T5's" if context.tokenizer else "made-up pieces"
    return {"weights": "random", "bytes": size, "tokenizer": tokenizer}


def bf16_full(context: Context, _: dict[str, Result]) -> Result:
    """Full fine-tuning under bf16 autocast."""
    return _learned(base_run(context, "bf16-full"))


def fp32_full(context: Context, _: dict[str, Result]) -> Result:
    """The same in fp32."""
    return _learned(base_run(context, "fp32-full", precision="fp32"))


def gradient_checkpointing(context: Context, done: dict[str, Result]) -> Result:
    """The same as `bf16_full` with gradient checkpointing, which must need less memory."""
    result = _learned(base_run(context, "checkpointing", gradient_checkpointing=True))
    before = done.get("bf16_full", {}).get("peak_memory_gib")
    result["peak_memory_gib_without"] = before
    if context.is_cuda and before is not None and result["peak_memory_gib"] >= before:
        raise FailedError("gradient checkpointing needs no less memory", result)
    return result


def lora(context: Context, _: dict[str, Result]) -> Result:
    """A rank-8 adapter under bf16 autocast, merged at the end."""
    return _learned(base_run(context, "lora", method="lora", learning_rate=1e-3))


def qlora(context: Context, _: dict[str, Result]) -> Result:
    """An adapter of a model in 4 bits."""
    _require_bitsandbytes(context)
    return _learned(base_run(context, "qlora", method="qlora", learning_rate=1e-3))


def adamw_8bit(context: Context, _: dict[str, Result]) -> Result:
    """Full fine-tuning with AdamW's moments in 8 bits."""
    _require_bitsandbytes(context)
    return _learned(base_run(context, "adamw-8bit", optimizer="adamw-8bit"))


def colab_t4(context: Context, _: dict[str, Result]) -> Result:
    """The preset for Colab's T4 on this card: never bf16, and within a T4's memory."""
    given = {
        **{"data": context.data, "output": context.work / "t4", "model": context.base},
        **{"time_limit": context.sizes.seconds, "max_eval_rows": context.sizes.eval_rows},
        **{"eval_steps": 0, "save_minutes": 0, "device": context.device, "max_target_length": 64},
    }
    result = measured_run(context, build_config(given, names=["colab-t4"]))
    if result["precision"] != "fp32":
        raise FailedError(f"colab-t4 resolved to {result['precision']}", result)
    if context.is_cuda and result["peak_memory_gib"] > T4_GIB:
        raise FailedError(f"colab-t4 needs more than a T4's {T4_GIB} GiB", result)
    return _learned(result)


def _require_bitsandbytes(context: Context) -> None:
    if not context.is_cuda:
        raise SkippedError("needs CUDA, for bitsandbytes' kernels")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SkippedError("bitsandbytes is not installed")


def _learned(result: Result) -> Result:
    """The result, if the loss is finite and fell; a run of a few steps shows nothing yet."""
    first, last = result["first_loss"], result["last_loss"]
    if not math.isfinite(last) or (result["steps"] >= 50 and last >= first):
        raise FailedError(f"the loss went from {first:.4f} to {last:.4f}", result)
    return result


def resume(context: Context, _: dict[str, Result]) -> Result:
    """A run that is killed and resumed, against one that is not, and that against its repetition.

    Each runs in a process of its own, as a user's runs do. Nothing here may use the GPU before.
    """
    data = context.work / "few"
    data.mkdir()
    for split, count in (("train", context.sizes.small_rows), ("dev", 8)):
        with data_files(context.data)[split].open(encoding="utf-8") as lines:
            (data / f"{split}.jsonl").write_text("".join(itertools.islice(lines, count)))

    def run(name: str, **options: Any) -> Outcome:
        arguments = (context, data, context.work / name, options)
        return call_in_process(_resumable_run, *arguments, limit=_RUN_SECONDS, new_group=False)

    whole, again = run("whole"), run("again")
    killed, resumed = run("killed", kill=True), run("killed", resume=True)
    for outcome in (whole, again, resumed):
        if outcome.status != "ok":
            raise FailedError(f"a run {outcome.status}: {outcome.reason}", {})
    if "-9" not in killed.reason:
        raise FailedError(f"the run was not killed: {killed.status} {killed.reason}", {})
    noise = _difference(context.work / "whole", context.work / "again")
    difference = _difference(context.work / "whole", context.work / "killed")
    result = {
        **resumed.result,
        "resumed_is_bit_identical": difference == 0.0,
        "largest_weight_difference": difference,
        "repeated_is_bit_identical": noise == 0.0,
        "largest_weight_difference_of_a_repetition": noise,
    }
    if resumed.result["resumed_at"] != _KILLED_AT:
        raise FailedError("it did not resume from the newest checkpoint", result)
    if difference > max(10 * noise, 0.0 if context.device == "cpu" else 1e-3):
        raise FailedError("the resumed run differs by more than ten repetitions", result)
    return result


def _resumable_run(context: Context, data: Path, output: Path, options: dict[str, Any]) -> Result:
    config = TrainConfig(
        data,
        output,
        from_scratch="tiny",
        vocab_size=200,
        epochs=3,
        batch_size=context.sizes.small_rows // 4,
        max_source_length=64,
        max_target_length=32,
        dropout=0.1,
        ema_ratio=0.5,
        save_steps=_KILLED_AT // 2,
        save_minutes=0,
        device=context.device,
        resume=options.get("resume", False),
    )
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if options.get("kill") and event.kind == "checkpoint" and event.step >= _KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)

    result = train(config, on_event=listen)
    return {
        "precision": result.record["hyperparameters"]["precision"],
        "steps": result.record["run"]["steps"],
        "resumed_at": next((event.step for event in events if event.kind == "resumed"), None),
    }


def _difference(first: Path, second: Path) -> float:
    """The largest absolute difference between two models' weights."""
    from safetensors.torch import load_file

    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def out_of_memory(context: Context, _: dict[str, Result]) -> Result:
    """A run whose batches fit, and the same with 0.6 of that memory: batches are halved.

    On a CPU, where the limit can't be set, the second run is a repetition.
    """
    config = TrainConfig(
        context.data,
        context.work / "oom",
        from_scratch="tiny",
        vocab_size=1000,
        epochs=1,
        batch_size=context.sizes.rows_too_many,
        max_source_length=64,
        max_target_length=48,
        dropout=0.0,
        rename_ratio=0.0,
        max_eval_rows=context.sizes.eval_rows,
        save_minutes=0,
        precision="fp32",
        device=context.device,
    )
    free = measured_run(context, config)
    limit = None
    if context.is_cuda:
        gc.collect()
        torch.cuda.empty_cache()
        limit = 0.6 * free["peak_memory_gib"] * GIB
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(limit / total)
    tight = measured_run(context, config)
    losses = [run["metrics"]["eval_loss"] for run in (free, tight)]
    result = {
        "peak_memory_gib": free["peak_memory_gib"],
        "limit_gib": limit and round(limit / GIB, 3),
        "micro_batches": [free["micro_batches"], tight["micro_batches"]],
        "steps": [free["steps"], tight["steps"]],
        "eval_loss": losses,
        "rows_per_second": [free["rows_per_second"], tight["rows_per_second"]],
        "warnings": tight["warnings"],
    }
    if free["steps"] != tight["steps"] or abs(losses[1] / losses[0] - 1) > 0.02:
        raise FailedError("the run with halved batches learned something else", result)
    if context.is_cuda and tight["micro_batches"] < 2:
        raise FailedError("no batch was halved", result)
    return result


def accuracy(context: Context, _: dict[str, Result]) -> Result:
    """A new tiny model under a time limit: its dev metrics, and those of copying the input."""
    given = {
        **{"data": context.data, "output": context.work / "accuracy", "device": context.device},
        **{"time_limit": context.sizes.accuracy_seconds, "batch_size": 128, "eval_steps": 0},
        **{"max_eval_rows": context.sizes.accuracy_rows, "eval_batch_size": 256},
    }
    watch = Watch(context)
    result = train(build_config(given, names=["from-scratch-cpu"]), on_event=watch)
    dev = read_rows(data_files(context.data)["dev"], Columns())[: context.sizes.accuracy_rows]
    inputs, targets = [row.input for row in dev], [row.target or "" for row in dev]
    copied = text_metrics(inputs, targets)
    outcome = {
        "model": result.record["model"],
        "parameters": result.record["parameters"],
        "precision": watch.details["precision"],
        "run": result.record["run"],
        "dev_rows": len(dev),
        "metrics": result.metrics,
        "metrics_of_copying": copied,
    }
    json.dumps(outcome)  # before minutes of work are handed on
    if len(dev) >= 100 and result.metrics["exact_match"] <= copied["exact_match"]:
        raise FailedError("the model is no better than copying the input", outcome)
    return outcome
