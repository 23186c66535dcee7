"""Options of `edge train`: one line each, with the defaults of `TrainConfig`.

Values are passed as text and parsed together with presets and files, so that all problems are
reported together. Options that are not given are left out and never override a preset.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from edge.cli.base import GroupedOption
from edge.cli.param_types import INPUT, completing

F = TypeVar("F", bound=Callable[..., Any])

_FLAG, _SWITCH = "flag", "switch"
_SHORT = {"model": "-m", "output": "-o"}

# Section → (field, metavar or kind, help). "[=]" stands for the default of the field.
_SECTIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Model": (
        ("model", "ID_OR_PATH", "T5-family model to fine-tune: a hub id or a folder."),
        ("revision", "REVISION", "Branch, tag or commit of a hub model."),
        (
            "tokenizer",
            "ID_OR_PATH",
            "Take the tokenizer from here, for a model without one.",
        ),
        ("from_scratch", "tiny|mini", "Train a new model of this size, with a new vocabulary."),
        ("output", "FOLDER", "Folder for the model; checkpoints are in FOLDER.run."),
        ("force", _FLAG, "Replace an existing output once the new one is complete."),
        ("resume", _FLAG, "Resume from the latest complete checkpoint of this output."),
    ),
    "Method": (
        ("method", "full|lora|qlora", "Train all weights, or a low-rank adapter.  [=]"),
        ("lora_rank", "N", "Rank of the adapter.  [=]"),
        ("lora_alpha", "FLOAT", "Scale the updates by alpha / rank.  [default: (4 × rank)]"),
        ("lora_dropout", "FLOAT", "Dropout on the inputs of the adapter.  [=]"),
        (
            "lora_targets",
            "NAMES",
            "Linear layers to adapt, e.g. q,v.  [default: (all layers of the blocks)]",
        ),
        ("quant_bits", "4|8", "Bits of the frozen weights with qlora.  [=]"),
        ("gradient_checkpointing", _FLAG, "Recompute activations to save memory."),
        ("decoder_layers", "N", "Keep N decoder layers, distilled from the full model."),
        ("distill_ratio", "RATIO", "Weight of the distillation loss.  [=]"),
    ),
    "Data": (
        ("input_column", "NAME", "Column of the input.  [=]"),
        ("target_column", "NAME", "Column of the target.  [=]"),
        ("task_column", "NAME", "Column of the task.  [=]"),
        ("prefix", "TEXT", "Prompt before the input, e.g. '[{task}] {input}'."),
        ("dev_ratio", "RATIO", "Ratio of rows for a dev split if DATA has none, by hash."),
        (
            "max_source_length",
            "N",
            "Maximum tokens of an input.  [default: (512; 256 from scratch)]",
        ),
        ("max_target_length", "N", "Maximum tokens of a target.  [=]"),
        (
            "long",
            "truncate|drop|chunk",
            "Cut longer training rows, drop them, or split the input into several rows.  [=]",
        ),
        (
            "vocabulary",
            "extend|keep|refuse",
            "Add the characters that the tokenizer lacks or drops, keep it, or stop.  [=]",
        ),
    ),
    "Optimization": (
        (
            "epochs",
            "FLOAT",
            "Passes over the rows.  [default: (by the number of rows; 8 from scratch)]",
        ),
        ("time_limit", "DURATION", "Plan the training for this time, e.g. 30m."),
        ("batch_size", "N", "Rows per batch.  [default: (16; 32 from scratch)]"),
        (
            "tokens_per_step",
            "N",
            "Tokens per step with padding, instead of --batch-size.",
        ),
        ("gradient_accumulation", "N", "Batches per step.  [=]"),
        (
            "learning_rate",
            "FLOAT",
            "Peak learning rate.  [default: (3e-4; 2e-3 for tiny, 1e-3 for mini)]",
        ),
        ("optimizer", "NAME", "adamw, adafactor, adamw-8bit or paged-adamw-8bit (CUDA).  [=]"),
        ("schedule", "linear|cosine|constant", "Learning rate after warmup.  [=]"),
        (
            "warmup_ratio",
            "RATIO",
            "Ratio of steps to warm up.  [default: (0.1; 0.05 from scratch)]",
        ),
        ("weight_decay", "FLOAT", "Weight decay of AdamW.  [=]"),
        ("adam_beta1", "FLOAT", "Beta1 of AdamW.  [=]"),
        ("adam_beta2", "FLOAT", "Beta2 of AdamW.  [default: (0.999; 0.99 from scratch)]"),
        ("max_grad_norm", "FLOAT", "Clip the gradient to this norm.  [=]"),
        ("label_smoothing", "FLOAT", "Label smoothing, from 0 to 1.  [=]"),
        (
            "dropout",
            "FLOAT",
            "Dropout.  [default: (by the number of rows; 0.05 from scratch)]",
        ),
        (
            "ema_ratio",
            "RATIO",
            "Average weights over this last part of the run.  [default: (0; 0.2 from scratch)]",
        ),
        ("ema_decay", "FLOAT", "Decay of the average per step.  [=]"),
        (
            "rename_ratio",
            "RATIO",
            "Ratio of rows whose rare words are renamed.  [default: (0; 0.5 from scratch)]",
        ),
        (
            "disfluency_ratio",
            "RATIO",
            "Ratio of rows whose input becomes the target with a disfluency from the data.  [=]",
        ),
        (
            "tagging_weight",
            "FLOAT",
            "Weight of a second loss: the encoder predicts which input tokens are kept.  [=]",
        ),
        (
            "vocab_size",
            "N",
            "Size of a new vocabulary.  [default: (2000 for tiny, 4000 for mini)]",
        ),
    ),
    "Device": (
        ("device", "auto|cpu|cuda|mps", "Device to train on.  [=]"),
        ("precision", "auto|bf16|fp32", "auto: bf16 if the device is fast with it.  [=]"),
        ("threads", "N", "Threads to compute with on a CPU.  [default: (torch's choice)]"),
        ("seed", "INTEGER", "Random seed.  [=]"),
    ),
    "Evaluation": (
        ("eval_batch_size", "N", "Rows per evaluation batch.  [=]"),
        ("max_eval_rows", "N", "Evaluate only on the first N rows of the dev split."),
        (
            "eval_steps",
            "N",
            "Evaluate every N steps; 0: never.  [default: (once per epoch; 0 from scratch)]",
        ),
        (
            "best_metric",
            "NAME",
            "Selects the best checkpoint: eval_loss, exact_match, verbatim_match, rouge_l or bleu."
            "  [=]",
        ),
        ("load_best", _SWITCH, "End with the best evaluated weights, not the last.  [=]"),
        ("patience", "N", "Stop after N evaluations without improvement; 0: off.  [=]"),
    ),
    "Checkpoints and logs": (
        ("save_steps", "N", "Save a checkpoint every N steps."),
        ("save_minutes", "MINUTES", "Save a checkpoint at this interval; 0: off.  [=]"),
        ("save_limit", "N", "Checkpoints to keep besides the best one.  [=]"),
        ("snapshot_epochs", "N", "Keep a model every N epochs."),
        ("tensorboard", _FLAG, "Also write TensorBoard logs (extra: tensorboard)."),
    ),
}


def train_options(function: F) -> F:
    """Add an option for every field of `TrainConfig` but `data`; the function gets those given."""
    for section, lines in reversed(_SECTIONS.items()):
        for name, kind, text in reversed(lines):
            function = _option(section, name, kind, text)(function)
    return function


def _preset_names() -> tuple[str, ...]:
    from edge.train.presets import presets

    return tuple(presets())


def layer_options(function: F) -> F:
    """Add `--preset` and `--config`, both repeatable."""
    function = click.option(
        "--config",
        multiple=True,
        type=INPUT,
        metavar="FILE",
        help="YAML file of options; repeatable.",
    )(function)
    return click.option(
        "--preset",
        multiple=True,
        metavar="NAME",
        shell_complete=completing(_preset_names),
        help="Preset of options, see edge presets; repeatable.",
    )(function)


def _option(section: str, name: str, kind: str, text: str) -> Callable[[F], F]:
    flag = "--" + name.replace("_", "-")
    names = [_SHORT[name], flag] if name in _SHORT else [flag]
    attributes: dict[str, Any] = {"metavar": kind}
    if re.fullmatch(r"[\w-]+(\|[\w-]+)+", kind):
        attributes["shell_complete"] = completing(kind.split("|"))
    if kind == _SWITCH:
        names = [f"{flag}/--no-{flag[2:]}"]
        attributes = {"default": None}
    elif kind == _FLAG:
        attributes = {"default": None, "is_flag": True}
    if text.endswith("[=]"):
        text = f"{text.removesuffix('[=]')}[default: {_default(name)}]"
    return click.option(*names, name, cls=GroupedOption, section=section, help=text, **attributes)


def _default(name: str) -> object:
    from edge.train.config import TrainConfig

    value = getattr(TrainConfig, name)
    return name.replace("_", "-") if value is True else value
