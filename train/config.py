"""What a training run is told: every hyperparameter, checked before anything heavy is loaded.

Fields that are None are decided by `resolved()`, by whether the model is new or trained already,
and by `for_rows()`, by the size of the data set.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edge.runtime.errors import UsageError
from edge.train.recommended import recommended_dropout, recommended_epochs

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "bf16", "fp32")
SHAPE_NAMES = ("tiny", "mini")
LONG_POLICIES = ("truncate", "drop", "chunk")
METHODS = ("full", "lora", "qlora")
OPTIMIZERS = ("adamw", "adafactor", "adamw-8bit", "paged-adamw-8bit")
SCHEDULES = ("linear", "cosine", "constant")
# True where less is better.
METRICS = {"eval_loss": True, "exact_match": False, "rouge_l": False, "bleu": False}
# What a from-scratch model and a pretrained one want differently.
_SCRATCH = {
    "learning_rate": 2e-3,
    "dropout": 0.05,
    "ema_ratio": 0.2,
    "rename_ratio": 0.5,
    "epochs": 8.0,
    "warmup_ratio": 0.05,
    "eval_steps": 0,  # an average over the last steps is better than the best of single ones
    "batch_size": 32,
    "adam_beta2": 0.99,
    "max_source_length": 256,
    "vocab_size": 2000,
}
_PRETRAINED = {
    "learning_rate": 3e-4,
    "ema_ratio": 0.0,
    "rename_ratio": 0.0,
    "warmup_ratio": 0.1,
    "batch_size": 16,
    "adam_beta2": 0.999,
    "max_source_length": 512,
}
# Not part of what is learned, so free to change when a run is resumed: where things are, how often
# they are looked at and saved, and the device's thread count.
_FREE_ON_RESUME = {
    *("data", "output", "model", "force", "resume", "threads", "eval_batch_size", "tensorboard"),
    *("save_steps", "save_minutes", "save_limit", "snapshot_epochs"),
}


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Lengths are in tokens, `max_minutes` in minutes of training proper.

    Exactly one of `model` (hub id or folder) and `from_scratch` (a shape's name) is given. With
    `max_minutes` the learning rate reaches zero when the time or the epochs are used up, whichever
    comes first; without `epochs` the time alone decides.
    """

    data: str | Path
    output: str | Path
    model: str | None = None
    from_scratch: str | None = None
    force: bool = False
    resume: bool = False  # go on from the newest complete checkpoint of this output
    # Method
    method: str = "full"
    lora_rank: int = 8
    lora_alpha: float | None = None  # four times the rank; updates are scaled by alpha / rank
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] | None = None  # names of linear layers; None: all of the blocks'
    quant_bits: int = 4  # of the frozen weights under qlora: 4 (nf4) or 8
    gradient_checkpointing: bool = False
    decoder_layers: int | None = None  # keep this many, distilled from the full model
    distill_ratio: float = 0.5  # of the loss that is the teacher's distribution, not the targets
    # Data
    input_column: str = "input"
    target_column: str = "target"
    task_column: str = "task"
    prefix: str | None = None
    dev_ratio: float | None = None
    max_source_length: int | None = None
    max_target_length: int = 128
    long: str = "truncate"  # what happens to longer training rows; dev rows are cut, as at run time
    # Optimization
    epochs: float | None = None
    max_minutes: float | None = None
    batch_size: int | None = None
    tokens_per_step: int | None = None  # in place of batch_size; inputs, targets and padding
    gradient_accumulation: int = 1
    learning_rate: float | None = None
    optimizer: str = "adamw"
    schedule: str = "linear"
    warmup_ratio: float | None = None
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float | None = None
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    dropout: float | None = None
    ema_ratio: float | None = None  # last part of training whose weights are averaged; 0 is off
    ema_decay: float = 0.99  # per step
    rename_ratio: float | None = None  # of the rows whose rare words are renamed each time
    disfluency_ratio: float = 0.0  # of the rows whose input is the target, spoken badly, each time
    # DeviceConfig
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    seed: int = 0
    # From scratch
    vocab_size: int | None = None
    # Evaluation
    eval_batch_size: int = 64
    max_eval_rows: int | None = None
    eval_steps: int | None = None  # while training; 0 is never, None once per epoch
    best_metric: str = "eval_loss"
    load_best: bool = True  # of the evaluations while training
    patience: int = 3  # evaluations without a better one before training stops; 0 is off
    # Checkpoints
    save_steps: int | None = None
    save_minutes: float = 5.0  # 0 is off
    save_limit: int = 3  # checkpoints kept, beside the best
    snapshot_epochs: int | None = None  # keep a model every so many epochs
    tensorboard: bool = False

    @property
    def is_scratch(self) -> bool:
        return self.from_scratch is not None

    @property
    def tokens_per_batch(self) -> int | None:
        """What a batch may hold where `tokens_per_step` decides, else None."""
        if self.tokens_per_step is None:
            return None
        return max(1, self.tokens_per_step // self.gradient_accumulation)

    def validate(self) -> None:
        """Complain about everything that is wrong, at once.

        Raises:
            UsageError: one sentence per wrong value.
        """
        problems = self.problems()
        if problems:
            raise UsageError("; ".join(problems))

    def resolved(self) -> TrainConfig:
        """The same run with every field decided that does not depend on the rows.

        Raises:
            UsageError: as `validate`.
        """
        self.validate()
        defaults: dict[str, Any] = dict(_SCRATCH if self.is_scratch else _PRETRAINED)
        if self.from_scratch == "mini":
            defaults |= {"vocab_size": 4000, "learning_rate": 1e-3}
        if self.max_minutes is not None:
            defaults["epochs"] = math.inf
        if self.method != "full":
            defaults["lora_alpha"] = 4.0 * self.lora_rank
        chosen = {name: v for name, v in defaults.items() if getattr(self, name) is None}
        return replace(self, **chosen)

    def for_rows(self, rows: int) -> tuple[TrainConfig, dict[str, str]]:
        """The same run with epochs and dropout chosen for that many training rows, and why.

        The reasons are by field, for those that were chosen here.
        """
        chosen: dict[str, Any] = {}
        why: dict[str, str] = {}
        if self.epochs is None:
            chosen["epochs"], why["epochs"] = recommended_epochs(rows)
        if self.dropout is None:
            chosen["dropout"], why["dropout"] = recommended_dropout(rows)
        return replace(self, **chosen), why

    def hyperparameters(self) -> dict[str, object]:
        """Every field by name, as JSON can hold it."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def must_match(self) -> dict[str, object]:
        """The fields that a checkpoint's run and the run that resumes it must have alike."""
        values = self.hyperparameters()
        return {name: value for name, value in values.items() if name not in _FREE_ON_RESUME}

    def problems(self) -> list[str]:
        """One sentence per wrong value."""
        found: list[str] = []
        if (self.model is None) == (self.from_scratch is None):
            found.append("give either --model ID_OR_PATH or --from-scratch tiny|mini")
        _one_of(found, "--from-scratch", self.from_scratch, SHAPE_NAMES)
        _one_of(found, "--device", self.device, DEVICES)
        if self.precision == "fp16":
            found.append(
                "--precision fp16: T5's feed-forward layers reach values beyond fp16's 65,504, and"
                " the loss becomes NaN; use bf16, which has fp32's range, or fp32"
            )
        else:
            _one_of(found, "--precision", self.precision, PRECISIONS)
        _one_of(found, "--long", self.long, LONG_POLICIES)
        _one_of(found, "--method", self.method, METHODS)
        _one_of(found, "--optimizer", self.optimizer, OPTIMIZERS)
        _one_of(found, "--schedule", self.schedule, SCHEDULES)
        _one_of(found, "--best-metric", self.best_metric, tuple(METRICS))
        if self.quant_bits not in (4, 8):
            found.append(f"--quant-bits {self.quant_bits}: choose 4 or 8")
        if self.is_scratch:
            if self.method != "full":
                found.append(
                    f"--method {self.method} adapts a trained model; --from-scratch makes a new one"
                )
            if self.decoder_layers is not None:
                found.append("--decoder-layers goes with --model; --from-scratch names its shape")
        elif self.decoder_layers is not None and self.method != "full":
            found.append(f"--decoder-layers trains all weights; leave out --method {self.method}")
        if self.vocab_size is not None and self.from_scratch is None:
            found.append("--vocab-size goes with --from-scratch only; a model brings its own")
        whole: tuple[str, ...] = (
            "max_source_length",
            "max_target_length",
            "batch_size",
            "tokens_per_step",
            "gradient_accumulation",
        )
        whole += ("threads", "vocab_size", "eval_batch_size", "max_eval_rows", "lora_rank")
        whole += ("decoder_layers", "save_steps", "save_limit", "snapshot_epochs")
        for name in whole:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                found.append(f"{_option(name)} {value}: must be a whole number from 1")
        for name in ("eval_steps", "patience"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 0):
                found.append(f"{_option(name)} {value}: must be a whole number, 0 for never")
        for name in ("epochs", "max_minutes", "learning_rate", "max_grad_norm", "lora_alpha"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                found.append(f"{_option(name)} {value}: must be more than 0")
        for name in ("weight_decay", "save_minutes"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                found.append(f"{_option(name)} {value}: must be 0 or more")
        for name in (
            *("warmup_ratio", "adam_beta1", "adam_beta2"),
            *("label_smoothing", "dropout", "lora_dropout"),
        ):
            _share(found, name, getattr(self, name), below_one=True)
        for name in ("ema_ratio", "ema_decay", "rename_ratio", "disfluency_ratio", "distill_ratio"):
            _share(found, name, getattr(self, name), below_one=False)
        if self.dev_ratio is not None and not 0 < self.dev_ratio < 1:
            found.append(f"--dev-ratio {self.dev_ratio}: must lie between 0 and 1")
        columns = (self.input_column, self.target_column)
        if columns[0] == columns[1]:
            found.append(f"--input-column and --target-column are both {columns[0]!r}")
        return found


def _one_of(found: list[str], option: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        found.append(f"{option} {value!r}: choose from {', '.join(known)}")


def _share(found: list[str], name: str, value: float | None, *, below_one: bool) -> None:
    if value is None:
        return
    if not 0 <= value <= 1 or (below_one and value == 1):
        found.append(f"{_option(name)} {value}: must be from 0 to {'below ' if below_one else ''}1")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    # JSON has no infinity.
    return None if isinstance(value, float) and math.isinf(value) else value


FIELD_NAMES = tuple(field.name for field in fields(TrainConfig))
