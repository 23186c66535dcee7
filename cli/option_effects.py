"""Options that need another option to have an effect; given without it, they are refused.

One table for all commands. Options of `edge train` are checked against the complete configuration,
since presets and files set values, too. Not in the table: permissions such as --force and
--trust-code, which change nothing where nothing needs them, and combinations that the libraries
refuse themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edge.cli.artifact_effects import (
    Values,
    drafts,
    forget_artifacts,
    has_beams,
    lowers_limit,
    prompt_has_fields,
    samples,
)


@dataclass(frozen=True)
class Rule:
    """Options of some commands, and the condition under which they have an effect.

    Attributes:
        commands: Names as typed, such as "data augment".
        options: Parameter names.
        idle: When they have none, as in "has no effect without --input".
        effective: Whether the options have an effect, by the values of the command.
    """

    commands: tuple[str, ...]
    options: tuple[str, ...]
    idle: str
    effective: Callable[[Values], bool]


def _reads_rows(values: Values) -> bool:
    """Whether --input is rows with columns, not lines of text."""
    from edge.runtime.batch.shards import is_dataset
    from edge.runtime.rows.kinds import kind_of

    source = values["input_file"]
    return source is not None and (kind_of(source) is not None or is_dataset(Path(source)))


_FLOATS = frozenset({"none", "float32", "float16", "bfloat16", "f16", "f32"})


def _quantizes(values: Values) -> bool:
    return not set(values["quantizations"]) <= _FLOATS


def _uses_rows(values: Values) -> bool:
    fitted = values["condition"] or "auto" in values["quantizations"]
    return values["tune"] or (fitted and _quantizes(values))


def _tries_onnx(values: Values) -> bool:
    return not values["formats"] or "onnx" in values["formats"]


def _tries_drafts(values: Values) -> bool:
    return set(values["formats"]) != {"ctranslate2"}


def _given(*names: str) -> Callable[[Values], bool]:
    """Whether one of these options has a value."""
    return lambda values: any(values[name] not in (None, False, ()) for name in names)


def _equals(name: str, *accepted: object) -> Callable[[Values], bool]:
    return lambda values: values[name] in accepted


_TRAIN = ("train", "check")
_ANSWER = ("run", "chat")

RULES = (
    Rule(
        _ANSWER,
        ("temperature", "top_k", "top_p", "seed"),
        "without --do-sample",
        samples,
    ),
    Rule(_ANSWER, ("length_penalty",), "without --num-beams above 1", has_beams),
    Rule(
        _ANSWER,
        ("prompt_lookup_num_tokens",),
        "except in greedy search of an onnx or gguf artifact, without a constraint",
        drafts,
    ),
    Rule(
        ("run", "serve"),
        ("fallback",),
        "without --on-long fallback",
        _equals("on_long", "fallback"),
    ),
    Rule(
        ("run",),
        ("input_column", "output_column"),
        "without --input of rows with columns",
        _reads_rows,
    ),
    Rule(("run",), ("fields",), "as the artifact's prompt has no such field", prompt_has_fields),
    Rule(
        ("run", "serve"),
        ("max_input_tokens",),
        "above the limit of the artifact",
        lowers_limit,
    ),
    Rule(("chat",), ("trust_code",), "with --url", _given("artifact")),
    Rule(
        ("serve",),
        ("log_content",),
        "with --quiet",
        _equals("quiet", False),
    ),
    Rule(("compile",), ("shortlist",), "without --format onnx", _tries_onnx),
    Rule(("compile",), ("no_drafts",), "with --format ctranslate2 alone", _tries_drafts),
    Rule(("tune",), ("input_column",), "without --data", _given("data")),
    Rule(
        ("export",),
        ("condition",),
        "without a quantization of at most 8 bits",
        _quantizes,
    ),
    Rule(
        ("export",),
        ("calibrate",),
        "without a quantization of at most 8 bits, or with --no-condition, unless --tune or"
        " --quantize auto needs the rows",
        _uses_rows,
    ),
    Rule(("export",), ("shortlist_frequent",), "without --shortlist FILE", _given("shortlist")),
    Rule(
        ("export",),
        ("input_column", "target_column"),
        "without --calibrate or --shortlist",
        _given("calibrate", "shortlist"),
    ),
    Rule(
        ("data augment",),
        ("prefix", "temperature", "top_p", "max_new_tokens", "threads"),
        "without --with MODEL",
        _given("model"),
    ),
    Rule(
        _TRAIN,
        ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets"),
        "without --method lora or qlora",
        _equals("method", "lora", "qlora"),
    ),
    Rule(_TRAIN, ("quant_bits",), "without --method qlora", _equals("method", "qlora")),
    Rule(_TRAIN, ("distill_ratio",), "without --decoder-layers", _given("decoder_layers")),
    Rule(_TRAIN, ("tokenizer",), "with --from-scratch", _given("model")),
    Rule(
        _TRAIN,
        ("batch_size",),
        "with --tokens-per-step",
        _equals("tokens_per_step", None),
    ),
    Rule(_TRAIN, ("ema_decay",), "with --ema-ratio 0", lambda values: bool(values["ema_ratio"])),
    Rule(
        _TRAIN,
        ("adam_beta1", "adam_beta2"),
        "with --optimizer adafactor",
        lambda values: values["optimizer"] != "adafactor",
    ),
    Rule(
        _TRAIN,
        ("best_metric", "load_best", "patience"),
        "with --eval-steps 0, the default from scratch",
        lambda values: values["eval_steps"] != 0,
    ),
    Rule(
        _TRAIN,
        ("save_limit",),
        "with --save-minutes 0 and without --save-steps",
        lambda values: values["save_steps"] is not None or values["save_minutes"] > 0,
    ),
)


def _spelled(param: click.Parameter, value: Any) -> str:
    """The long form of an option: "--no-condition" if its value is False."""
    off = param.secondary_opts if value is False else []
    return max(off or param.opts, key=len)


def refuse_without_effect(
    command: str, given: Collection[str], values: Values, params: Collection[click.Parameter]
) -> None:
    """Check the given options of a command against the table.

    Args:
        command: The command's name as typed, such as "data augment".
        given: Names of the parameters that the user gave.
        values: All values of the command by parameter name.
        params: The command's parameters, for their spelling.

    Raises:
        UsageError: An option has no effect; the message lists all of them.
    """
    from edge.runtime.errors import UsageError

    forget_artifacts()
    names = {param.name: _spelled(param, values.get(param.name or "")) for param in params}
    problems = []
    for rule in RULES:
        if command not in rule.commands:
            continue
        useless = [names[name] for name in rule.options if name in given]
        if useless and not rule.effective(values):
            has = "has" if len(useless) == 1 else "have"
            problems.append(f"{', '.join(useless)} {has} no effect {rule.idle}")
    if problems:
        raise UsageError("; ".join(problems))
