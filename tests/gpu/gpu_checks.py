"""Parts of the GPU suite that compare and measure: device, loss, throughput, export."""

from __future__ import annotations

import importlib.util
import itertools
import platform
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from edge.runtime.options import GenerationOptions
from edge.runtime.rows import Columns, read_rows
from edge.train.config import TrainConfig
from edge.train.data import IGNORED_LABEL, Collator, load_splits, tokenize
from edge.train.data.pairs import data_files
from edge.train.data.sampler import training_rows
from edge.train.device import choose_device, has_fast_bf16
from edge.train.evaluate import EvaluationOptions, evaluate
from edge.train.model.loading import Trainable, load_pretrained
from edge.train.output.record import versions
from gpu_context import GIB, Context, synchronize
from gpu_runner import FailedError, Result, SkippedError

LOSS_TOLERANCE = 1e-4  # relative, fp32 on both devices
GRADIENT_TOLERANCE = 1e-3
_LIMITS = {"max_source_length": 128, "max_target_length": 64}


def device(context: Context, _: dict[str, Result]) -> Result:
    """The device, and what --device auto and --precision auto choose on it."""
    chosen = choose_device("auto", "auto")
    result: Result = {
        "name": platform.processor() or platform.machine(),
        "auto": {"device": chosen.device, "precision": chosen.precision},
        "versions": versions(),
    }
    if context.is_cuda:
        if not torch.cuda.is_available():
            raise SkippedError("there is no CUDA GPU")
        properties = torch.cuda.get_device_properties(0)
        result |= {
            "name": properties.name,
            "compute_capability": list(torch.cuda.get_device_capability()),
            "memory_gib": round(properties.total_memory / GIB, 1),
            "cuda": torch.version.cuda,
            "has_fast_bf16": has_fast_bf16("cuda"),
            "torch_says_bf16": torch.cuda.is_bf16_supported(),
        }
    return result


def loss(context: Context, _: dict[str, Result]) -> Result:
    """Loss, gradients and answers of one batch, on the CPU and on the device, in fp32."""
    trainable = load_pretrained(str(context.model or context.base), dropout=0.0)
    model, rows = trainable.model, _rows(context, trainable, "dev", context.sizes.eval_rows)
    batch = Collator(trainable.tokenizer)(rows)

    def measure(where: str, precision: str = "fp32") -> tuple[float, float]:
        model.to(where).zero_grad()
        here = {name: tensor.to(where) for name, tensor in batch.items()}
        with torch.autocast(where, dtype=torch.bfloat16, enabled=precision == "bf16"):
            value = model(**here).loss
        value.backward()
        norms = [weight.grad.norm() for weight in model.parameters() if weight.grad is not None]
        return float(value.detach()), float(torch.stack(norms).norm())

    def answer(where: str) -> Any:
        options = EvaluationOptions(batch_size=len(rows))
        generation = GenerationOptions(max_new_tokens=64)
        model.to(where)
        return evaluate(model, trainable.tokenizer, rows, generation=generation, options=options)

    expected, found = measure("cpu"), measure(context.device)
    answers = [answer(where).predictions for where in ("cpu", context.device)]
    differences = [abs(there / here - 1) for here, there in zip(expected, found, strict=True)]
    result = {
        "model": str(context.model.name if context.model else "random weights"),
        "rows": len(rows),
        "loss": {"cpu": expected[0], context.device: found[0]},
        "gradient_norm": {"cpu": expected[1], context.device: found[1]},
        "relative_loss_difference": differences[0],
        "relative_gradient_difference": differences[1],
        "tolerance": {"loss": LOSS_TOLERANCE, "gradient": GRADIENT_TOLERANCE},
        "bf16_loss": measure(context.device, "bf16")[0],
        "equal_answers": sum(map(str.__eq__, *answers)),
    }
    if differences[0] > LOSS_TOLERANCE or differences[1] > GRADIENT_TOLERANCE:
        raise FailedError("loss or gradients differ from the CPU's", result)
    return result


def _rows(context: Context, trainable: Trainable, split: str, count: int | None) -> Any:
    config = TrainConfig(context.data, context.work / "unused", model="unused")
    pairs = getattr(load_splits(config), split)[:count]
    dataset, _ = tokenize(pairs, trainable.tokenizer, **_LIMITS, name=split)
    return [dict(row) for row in dataset]


def throughput(context: Context, _: dict[str, Result]) -> Result:
    """Steps per second with edge's token-budget batches, and with two simpler ways to pad.

    The same plain loop (autocast, backward, fused AdamW) for all, so that only the batches differ.
    No step has more padded tokens than the budget: random batches have as many rows as fit if one
    of them is the longest.
    """
    trainable = load_pretrained(str(context.base), dropout=0.0)
    model: Any = trainable.model.to(context.device).train()
    rows = _rows(context, trainable, "train", None)
    config = TrainConfig(
        **{"data": "unused", "output": "unused", "model": "unused"},
        tokens_per_step=context.sizes.tokens,
        **_LIMITS,
    ).resolved()
    dataset, sampler = training_rows(rows, trainable.tokenizer, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    longest = [max(sizes) for sizes in zip(*dataset.lengths, strict=True)]
    most_rows = max(1, context.sizes.tokens // sum(longest))
    collate = Collator(trainable.tokenizer)

    def batches(way: str) -> Iterator[dict[str, torch.Tensor]]:
        order = random.Random(0)
        numbers = list(range(len(rows)))
        for epoch in itertools.count():
            if way == "token_budget":
                plan = sampler.batches(epoch)
            else:
                order.shuffle(numbers)
                starts = range(0, len(numbers), most_rows)
                plan = [numbers[start : start + most_rows] for start in starts]
            for batch in plan:
                tensors = collate([dataset[number] for number in batch])
                yield _widened(tensors, longest) if way == "fixed_padding" else tensors

    def step(batch: dict[str, torch.Tensor]) -> None:
        optimizer.zero_grad()
        with torch.autocast(context.device, dtype=torch.bfloat16):
            value = model(**{name: t.to(context.device) for name, t in batch.items()}).loss
        value.backward()
        optimizer.step()

    ways = {way: batches(way) for way in ("token_budget", "fixed_padding", "longest_in_batch")}
    speeds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    waste: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(context.sizes.rounds + 1):  # the first warms up
        for way, source in ways.items():
            row_count, tokens, padded = 0, 0, 0
            synchronize(context)
            start = time.monotonic()
            while time.monotonic() - start < context.sizes.round_seconds:
                batch = next(source)
                step(batch)
                synchronize(context)
                row_count += len(batch["input_ids"])
                tokens += int(batch["attention_mask"].sum())
                tokens += int((batch["labels"] != IGNORED_LABEL).sum())
                padded += batch["input_ids"].numel() + batch["labels"].numel()
            seconds = time.monotonic() - start
            if number:
                speeds[way].append((tokens / seconds, row_count / seconds))
                waste[way].append(1 - tokens / padded)
    medians = {way: _medians(speeds[way]) for way in ways}
    best, fixed = medians["token_budget"], medians["fixed_padding"]
    return {
        "weights": "random",
        "tokens_per_step": context.sizes.tokens,
        "rows_per_batch": {
            "token_budget": round(len(rows) / len(sampler), 1),
            "fixed_padding": most_rows,
            "longest_in_batch": most_rows,
        },
        "longest_row": longest,
        "tokens_per_second": {way: round(median[0], 1) for way, median in medians.items()},
        "rows_per_second": {way: round(median[1], 1) for way, median in medians.items()},
        "rows_per_second_of_each_round": {
            way: [round(speed[1], 1) for speed in speeds[way]] for way in ways
        },
        "padding": {way: round(statistics.median(waste[way]), 4) for way in ways},
        "speedup_over_fixed_padding": round(best[1] / fixed[1], 2),
    }


def _medians(speeds: list[tuple[float, float]]) -> tuple[float, float]:
    tokens, rows = zip(*speeds, strict=True)
    return statistics.median(tokens), statistics.median(rows)


def _widened(batch: dict[str, torch.Tensor], widths: list[int]) -> dict[str, torch.Tensor]:
    """The batch padded to the given input and target widths."""
    fillers = {"input_ids": (0, 0), "attention_mask": (0, 0), "labels": (1, IGNORED_LABEL)}
    widened = {}
    for name, tensor in batch.items():
        which, filler = fillers[name]
        more = widths[which] - tensor.shape[1]
        widened[name] = torch.nn.functional.pad(tensor, (0, more), value=filler)
    return widened


def export(context: Context, done: dict[str, Result]) -> Result:
    """The model that the device trained, as an ONNX artifact that answers on the CPU."""
    if "accuracy" not in done:
        raise SkippedError("there is no model: the part accuracy did not succeed")
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise SkippedError(f"{', '.join(missing)} not installed")
    from edge.export import export as export_model
    from edge.runtime import load

    [exported] = export_model(context.work / "accuracy", context.work / "artifact", "onnx", "int8")
    texts = [row.input for row in read_rows(data_files(context.data)["dev"], Columns())[:4]]
    with load(exported.folder) as artifact:
        answers = [answer.text for answer in artifact.generate(texts)]
    return {
        "artifact": f"{exported.manifest.format}-{exported.manifest.quantization}",
        "mean_error": exported.parity.mean_error,
        "inputs": texts,
        "answers": answers,
    }
