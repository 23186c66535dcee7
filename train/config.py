"""Training hyperparameters, validated before anything heavy is loaded.

`TrainConfig` holds what was asked for. `TrainConfig.resolved` fills in the defaults that depend on
whether the model is new or pretrained, `ResolvedTrainConfig.for_rows` those that depend on the
number of training rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from edge.runtime.durations import parse_duration
from edge.runtime.errors import UsageError
from edge.train.field_rules import (
    DURATION,
    FRACTION,
    LEARNING_RATE,
    NON_NEGATIVE,
    NOT_FP16,
    POSITIVE,
    RATIO,
    RATIO_BELOW_1,
    SEED,
    at_least,
    broken_rule,
    one_of,
    rules_of,
)
from edge.train.recommended import recommended_dropout, recommended_epochs

LONG_POLICIES = ("truncate", "drop", "chunk")
# Metrics that can select the best checkpoint; True if lower is better.
METRICS = dict.fromkeys(("exact_match", "verbatim_match", "rouge_l", "bleu"), False)
METRICS["eval_loss"] = True
# Defaults that differ between a new and a pretrained model.
_FROM_SCRATCH_DEFAULTS = {
    "learning_rate": 2e-3,
    "dropout": 0.05,
    "ema_ratio": 0.2,
    "rename_ratio": 0.5,
    "epochs": 8.0,
    "warmup_ratio": 0.05,
    "eval_steps": 0,  # averaged weights beat the best single checkpoint
    "batch_size": 32,
    "adam_beta2": 0.99,
    "max_source_length": 256,
    "vocab_size": 2000,
}
_MINI_DEFAULTS = {"vocab_size": 4000, "learning_rate": 1e-3}
_PRETRAINED_DEFAULTS = {
    "learning_rate": 3e-4,
    "ema_ratio": 0.0,
    "rename_ratio": 0.0,
    "warmup_ratio": 0.1,
    "batch_size": 16,
    "adam_beta2": 0.999,
    "max_source_length": 512,
}
# May change when a run is resumed, because they don't affect what is learned.
_FREE_ON_RESUME = {
    *("data", "output", "model", "revision", "force", "resume", "threads", "eval_batch_size"),
    *("tensorboard", "save_steps", "save_minutes", "save_limit", "snapshot_epochs"),
}

_Count = Annotated[int, at_least(1)]
_OptionalCount = Annotated[int | None, at_least(1)]
_OptionalPositive = Annotated[float | None, POSITIVE]
_Ratio = Annotated[float, RATIO]
_OptionalRatio = Annotated[float | None, RATIO]
_RatioBelow1 = Annotated[float, RATIO_BELOW_1]
_OptionalRatioBelow1 = Annotated[float | None, RATIO_BELOW_1]


@dataclass(frozen=True)
class TrainConfig:
    """The hyperparameters of one training run. Lengths are in tokens.

    Exactly one of `model` (hub id or folder) and `from_scratch` (shape) must be given. The learning
    rate reaches zero when `time_limit` (seconds, or text such as "30m") or `epochs` are used up,
    whichever comes first. Fields that are None get their default from `resolved` and `for_rows`.
    """

    data: str | Path
    output: str | Path
    model: str | None = None
    revision: str | None = None  # branch, tag or commit of a hub model
    tokenizer: str | None = None  # a folder or hub id, for a model without one
    from_scratch: Annotated[str | None, one_of("tiny", "mini")] = None
    force: bool = False
    resume: bool = False  # from the newest complete checkpoint of this output
    # Method
    method: Annotated[str, one_of("full", "lora", "qlora")] = "full"
    lora_rank: _Count = 8
    lora_alpha: _OptionalPositive = None  # updates are scaled by alpha / rank; 4 × rank
    lora_dropout: _RatioBelow1 = 0.05
    lora_targets: tuple[str, ...] | None = None  # names of linear layers; None: all in the blocks
    quant_bits: Annotated[int, one_of(4, 8)] = 4  # of the frozen weights under qlora; 4 is nf4
    gradient_checkpointing: bool = False
    decoder_layers: _OptionalCount = None  # keep this many, distilled from the full model
    distill_ratio: _Ratio = 0.5  # weight of the teacher's distribution in the loss
    # Data
    input_column: str = "input"
    target_column: str = "target"
    task_column: str = "task"
    prefix: str | None = None
    dev_ratio: Annotated[float | None, FRACTION] = None
    max_source_length: _OptionalCount = None
    max_target_length: _Count = 128
    # For training rows over the maximum lengths; dev rows are truncated, as at inference.
    long: Annotated[str, one_of(*LONG_POLICIES)] = "truncate"
    vocabulary: Annotated[str, one_of("extend", "keep", "refuse")] = "extend"  # for lost characters
    # Optimization
    epochs: _OptionalPositive = None
    time_limit: Annotated[float | str | None, DURATION] = None
    batch_size: _OptionalCount = None
    tokens_per_step: _OptionalCount = None  # instead of batch_size; inputs, targets and padding
    gradient_accumulation: _Count = 1
    learning_rate: Annotated[float | None, LEARNING_RATE] = None
    optimizer: Annotated[str, one_of("adamw", "adafactor", "adamw-8bit", "paged-adamw-8bit")] = (
        "adamw"
    )
    schedule: Annotated[str, one_of("linear", "cosine", "constant")] = "linear"
    warmup_ratio: _OptionalRatioBelow1 = None
    weight_decay: Annotated[float, NON_NEGATIVE] = 0.0
    adam_beta1: _RatioBelow1 = 0.9
    adam_beta2: _OptionalRatioBelow1 = None
    max_grad_norm: Annotated[float, POSITIVE] = 1.0
    label_smoothing: _RatioBelow1 = 0.0
    dropout: _OptionalRatioBelow1 = None
    ema_ratio: _OptionalRatio = None  # last part of training whose weights are averaged; 0: off
    ema_decay: _Ratio = 0.99  # per step
    rename_ratio: _OptionalRatio = None  # of the rows whose rare words are renamed each epoch
    disfluency_ratio: _Ratio = 0.0  # of the rows whose input is the target with a disfluency
    tagging_weight: Annotated[float, NON_NEGATIVE] = 0.0  # of the loss of kept source tokens
    # Device
    device: Annotated[str, one_of("auto", "cpu", "cuda", "mps")] = "auto"
    precision: Annotated[str, NOT_FP16, one_of("auto", "bf16", "fp32")] = "auto"
    threads: _OptionalCount = None
    seed: Annotated[int, SEED] = 0
    vocab_size: _OptionalCount = None  # of a new model
    # Evaluation
    eval_batch_size: _Count = 64
    max_eval_rows: _OptionalCount = None
    eval_steps: Annotated[int | None, at_least(0)] = None  # 0: never; None: once per epoch
    best_metric: Annotated[str, one_of(*METRICS)] = "eval_loss"
    load_best: bool = True  # end with the best evaluated weights
    patience: Annotated[int, at_least(0)] = 3  # evaluations without improvement; 0: never stop
    # Checkpoints
    save_steps: _OptionalCount = None
    save_minutes: Annotated[float, NON_NEGATIVE] = 5.0  # 0: off
    save_limit: _Count = 3  # checkpoints to keep, besides the best
    snapshot_epochs: _OptionalCount = None  # keep a model every so many epochs
    tensorboard: bool = False

    @property
    def is_from_scratch(self) -> bool:
        """Whether a new model is made, with its own vocabulary."""
        return self.from_scratch is not None

    @property
    def tokens_per_batch(self) -> int | None:
        """The maximum tokens of a batch if `tokens_per_step` is given, else None."""
        if self.tokens_per_step is None:
            return None
        return max(1, self.tokens_per_step // self.gradient_accumulation)

    def validate(self) -> None:
        """Check all fields.

        Raises:
            UsageError: Names every invalid value.
        """
        problems = self.problems()
        if problems:
            raise UsageError("; ".join(problems))

    def problems(self) -> list[str]:
        """One message for each invalid value or combination of values."""
        found = []
        for name, rules in rules_of(TrainConfig).items():
            value = getattr(self, name)
            if (rule := broken_rule(value, rules)) is not None:
                found.append(f"{option(name)} {value!r}: {rule.message}")
        return [*self._conflicts(), *found]

    def _conflicts(self) -> list[str]:
        """Combinations of values that exclude each other."""
        found = []
        if (self.model is None) == (self.from_scratch is None):
            found.append("give either --model ID_OR_PATH or --from-scratch tiny|mini")
        if self.is_from_scratch and self.revision is not None:
            found.append("--revision requires --model")
        if self.is_from_scratch and self.method != "full":
            found.append(f"--method {self.method} adapts a trained model; remove --from-scratch")
        if self.is_from_scratch and self.decoder_layers is not None:
            found.append("--decoder-layers requires --model; --from-scratch has a fixed shape")
        if not self.is_from_scratch and self.decoder_layers is not None and self.method != "full":
            found.append(f"--decoder-layers trains all weights; remove --method {self.method}")
        if not self.is_from_scratch and self.vocab_size is not None:
            found.append("--vocab-size requires --from-scratch; a model has its own vocabulary")
        if self.input_column == self.target_column:
            found.append(f"--input-column and --target-column are both {self.input_column!r}")
        return found

    def resolved(self) -> ResolvedTrainConfig:
        """This configuration with all defaults that don't depend on the rows filled in.

        Raises:
            UsageError: As `validate`.
        """
        self.validate()
        new = self.is_from_scratch
        defaults: dict[str, Any] = dict(_FROM_SCRATCH_DEFAULTS if new else _PRETRAINED_DEFAULTS)
        if self.from_scratch == "mini":
            defaults |= _MINI_DEFAULTS
        if self.time_limit is not None:
            defaults["epochs"] = math.inf
        defaults["lora_alpha"] = 4.0 * self.lora_rank
        values = _filled(self, defaults)
        if self.time_limit is not None:
            values["time_limit"] = parse_duration(self.time_limit, "--time-limit")
        return ResolvedTrainConfig(**values)

    def hyperparameters(self) -> dict[str, object]:
        """All fields by name, as JSON-serializable values."""
        return {name: _to_json(value) for name, value in asdict(self).items()}

    def fingerprint_fields(self) -> dict[str, object]:
        """The fields in which a resumed run must equal the run that wrote the checkpoint."""
        return {n: v for n, v in self.hyperparameters().items() if n not in _FREE_ON_RESUME}


@dataclass(frozen=True, kw_only=True)
class ResolvedTrainConfig(TrainConfig):
    """A valid configuration in which only `epochs` and `dropout` may still be open.

    `time_limit` is in seconds. `eval_steps` None is one evaluation per epoch.
    """

    lora_alpha: float = field()
    max_source_length: int = field()
    time_limit: float | None = field()
    batch_size: int = field()
    learning_rate: float = field()
    warmup_ratio: float = field()
    adam_beta2: float = field()
    ema_ratio: float = field()
    rename_ratio: float = field()

    def resolved(self) -> ResolvedTrainConfig:
        """This configuration itself."""
        return self

    def for_rows(self, rows: int) -> tuple[RunConfig, dict[str, str]]:
        """This configuration with epochs and dropout chosen for `rows` training rows.

        Returns:
            The configuration, and the reason for each value that was chosen here, by field.
        """
        chosen: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        if self.epochs is None:
            chosen["epochs"], reasons["epochs"] = recommended_epochs(rows)
        if self.dropout is None:
            chosen["dropout"], reasons["dropout"] = recommended_dropout(rows)
        return RunConfig(**_filled(self, chosen)), reasons


@dataclass(frozen=True, kw_only=True)
class RunConfig(ResolvedTrainConfig):
    """The configuration of a run whose number of rows is known. `epochs` may be infinite."""

    epochs: float = field()
    dropout: float = field()


def option(name: str) -> str:
    """The command-line option of the field `name`: "batch_size" → "--batch-size"."""
    return "--" + name.replace("_", "-")


def _filled(config: TrainConfig, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `config`, with `defaults` for those that are None."""
    values = {name: getattr(config, name) for name in FIELD_NAMES}
    return values | {name: v for name, v in defaults.items() if values[name] is None}


def _to_json(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and math.isinf(value) else value  # no infinity in JSON


FIELD_NAMES = tuple(each.name for each in fields(TrainConfig))
