"""The options of `edge train`: one line each, defaults from `TrainConfig`.

Values arrive as text and are parsed where presets and files are, so that all mistakes are told at
once. What was not given is left out: it must not override a preset.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

# Name, what to give (empty for a switch), help. "=" in the help stands for the field's default.
_GROUPS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Model": (
        ("model", "ID_OR_PATH", "T5-family model: a hub id or a folder."),
        ("from_scratch", "tiny|mini", "A new model of this shape, with its own vocabulary."),
        ("output", "FOLDER", "Where the model goes; checkpoints lie in FOLDER.run until then."),
        ("force", "", "Replace an existing output once the new one is done."),
        ("resume", "", "Go on from the newest complete checkpoint of this output."),
    ),
    "Method": (
        ("method", "full|lora|qlora", "Train all weights, or a low-rank adapter.  [=]"),
        ("lora_rank", "INTEGER", "Rank of the adapter.  [=]"),
        ("lora_alpha", "FLOAT", "Updates are scaled by alpha / rank.  [4 × rank]"),
        ("lora_dropout", "FLOAT", "Of the adapter's inputs.  [=]"),
        ("lora_targets", "NAMES", "Linear layers to adapt, such as q,v.  [all of the blocks']"),
        ("quant_bits", "4|8", "Of the frozen weights under qlora.  [=]"),
        ("gradient_checkpointing", "", "Compute activations anew to save memory."),
        ("decoder_layers", "INTEGER", "Keep this many, distilled from the full model."),
        ("distill_ratio", "FLOAT", "Of the loss that is the full model's distribution.  [=]"),
    ),
    "Data": (
        ("input_column", "NAME", "Column of the input.  [=]"),
        ("target_column", "NAME", "Column of the target.  [=]"),
        ("task_column", "NAME", "Column of the task.  [=]"),
        ("prefix", "TEXT", 'Prompt before the input, such as "[{task}] {input}".'),
        ("dev_ratio", "FLOAT", "Without a dev split: share of rows for it, by hash."),
        ("max_source_length", "INTEGER", "Tokens of an input.  [512; scratch 256]"),
        ("max_target_length", "INTEGER", "Tokens of a target.  [=]"),
        (
            "long",
            "truncate|drop|chunk",
            "Training rows over these lengths: cut, left out, or the input in several rows.  [=]",
        ),
    ),
    "Optimization": (
        ("epochs", "FLOAT", "Passes over the rows.  [by the number of rows; scratch 8]"),
        ("max_minutes", "FLOAT", "Plan the training for this time instead."),
        ("batch_size", "INTEGER", "Rows of a batch.  [16; scratch 32]"),
        (
            "tokens_per_step",
            "INTEGER",
            "Tokens of a step, padding too, in place of --batch-size.",
        ),
        ("gradient_accumulation", "INTEGER", "Batches of a step.  [=]"),
        ("learning_rate", "FLOAT", "Peak.  [3e-4; tiny 2e-3, mini 1e-3]"),
        ("optimizer", "adamw|adafactor|adamw-8bit|paged-adamw-8bit", "8 bit: CUDA only.  [=]"),
        ("schedule", "linear|cosine|constant", "Of the rate after warm-up.  [=]"),
        ("warmup_ratio", "FLOAT", "Of the run.  [0.1; scratch 0.05]"),
        ("weight_decay", "FLOAT", "AdamW's.  [=]"),
        ("adam_beta1", "FLOAT", "AdamW's.  [=]"),
        ("adam_beta2", "FLOAT", "AdamW's.  [0.999; scratch 0.99]"),
        ("max_grad_norm", "FLOAT", "Clip to this.  [=]"),
        ("label_smoothing", "FLOAT", "0 to 1.  [=]"),
        ("dropout", "FLOAT", "[by the number of rows; scratch 0.05]"),
        ("ema_ratio", "FLOAT", "Last share whose weights are averaged.  [0; scratch 0.2]"),
        ("ema_decay", "FLOAT", "Per step.  [=]"),
        ("rename_ratio", "FLOAT", "Rows whose rare words are renamed.  [0; scratch 0.5]"),
        (
            "disfluency_ratio",
            "FLOAT",
            "Rows whose input is the target, spoken with a stumble mined from the rows.  [=]",
        ),
        ("vocab_size", "INTEGER", "Pieces of a new vocabulary.  [tiny 2000, mini 4000]"),
    ),
    "Machine": (
        ("device", "auto|cpu|cuda|mps", "Where to train.  [=]"),
        ("precision", "auto|bf16|fp32", "auto: bf16 where the device is fast at it.  [=]"),
        ("threads", "INTEGER", "Threads on the CPU; default: torch's choice."),
        ("seed", "INTEGER", "Of everything random.  [=]"),
    ),
    "Evaluation": (
        ("eval_batch_size", "INTEGER", "Rows of a batch.  [=]"),
        ("max_eval_rows", "INTEGER", "Evaluate on the first rows of dev only."),
        ("eval_steps", "INTEGER", "While training; 0: never.  [once per epoch; scratch 0]"),
        ("best_metric", "eval_loss|exact_match|rouge_l|bleu", "That decides what is best.  [=]"),
        ("load_best", "switch", "End with the best weights that were evaluated, not the last."),
        ("patience", "INTEGER", "Stop after so many evaluations without a better; 0: off.  [=]"),
    ),
    "Checkpoints and logs": (
        ("save_steps", "INTEGER", "Checkpoint every so many steps."),
        ("save_minutes", "FLOAT", "Checkpoint every so many minutes; 0: off.  [=]"),
        ("save_limit", "INTEGER", "Checkpoints to keep, beside the best.  [=]"),
        ("snapshot_epochs", "INTEGER", "Keep a model every so many epochs."),
        ("tensorboard", "", "Write TensorBoard logs too (extra: tensorboard)."),
    ),
}


def train_options(function: F) -> F:
    """Every field of `TrainConfig` but `data`; the function gets those that were given."""
    lines = [line for group in _GROUPS.values() for line in group]
    for name, takes, text in reversed(lines):
        function = _option(name, takes, text)(function)
    return function


def layer_options(function: F) -> F:
    """`--preset` and `--config`, both repeatable; the function gets `preset` and `config`."""
    function = click.option(
        "--config",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="YAML file of options; overrides presets, is overridden by options.",
    )(function)
    return click.option(
        "--preset",
        multiple=True,
        metavar="NAME",
        help="`edge presets` lists them; give an environment and an aim: a later one wins.",
    )(function)


def _option(name: str, takes: str, text: str) -> Callable[[F], F]:
    flag = "--" + name.replace("_", "-")
    help_text = text.replace("[=]", f"[{_default(name)}]") if "[=]" in text else text
    if takes == "switch":
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    if not takes:
        return click.option(flag, name, is_flag=True, default=None, help=help_text)
    flags = (flag,)
    return click.option(*flags, name, metavar=takes, help=help_text)


def _default(name: str) -> object:
    from edge.train.config import TrainConfig

    return getattr(TrainConfig, name)
