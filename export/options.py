"""Export options, and the prompt, limits and generation defaults that follow from them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.export.conditioning.calibration import CalibrationRequest
from edge.export.draft_head import DRAFT_HEAD_NAME, DraftHead, read_draft_head
from edge.export.shortlist import ShortlistRequest
from edge.export.source import SourceModel
from edge.runtime.artifact import TOKENIZER_NAME, sha256_of
from edge.runtime.artifact.manifest import MAX_LIMITS, Limits
from edge.runtime.artifact.text_fingerprint import TextFingerprint
from edge.runtime.engines import ENGINES
from edge.runtime.errors import DataError, ModelError, UsageError
from edge.runtime.options import GenerationOptions
from edge.runtime.platform.destination import check_destination
from edge.runtime.rows import Prompt
from edge.runtime.rows.kinds import is_hub
from edge.train.model.generation import DEFAULT_NEW_TOKENS
from edge.train.model.training_record import RECORD_NAME

# T5 itself has no maximum length; these bound the cost of untrusted input.
_DEFAULT_INPUT_LIMIT = 512
_DEFAULT_NEW_TOKENS_LIMIT = 512
_MAX_LENGTH = 1 << 16
_TRANSFORMERS_NEW_TOKENS = 20  # the length of answers where no file says


@dataclass(frozen=True)
class ExportOptions:
    """Settings of an export; None takes the value from the model folder or from the format.

    Attributes:
        prompt: the prompt template around each input, such as "rewrite: " or "[{task}] {input}".
        max_input_tokens: the longest input that the artifact accepts.
        max_new_tokens_limit: the most new tokens that a caller may ask for.
        generation: generation defaults by the names of `GenerationOptions`; they override
            those of the model folder.
        max_error, mean_error: parity limits in place of the format's (see `Tolerance`).
        condition: rewrite the weights before they are quantized (see `edge.export.conditioning`).
        calibrate: the rows whose activations the quantization is fitted to; None takes built-in
            English texts.
        compare_answers: compare the answers to held-out calibration rows with float32's.
        shortlist: restrict the searches to a vocabulary shortlist (ONNX only).
    """

    prompt: str | None = None
    max_input_tokens: int | None = None
    max_new_tokens_limit: int | None = None
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_error: float | None = None
    mean_error: float | None = None
    condition: bool = True
    calibrate: CalibrationRequest | None = None
    compare_answers: bool = True
    shortlist: ShortlistRequest | None = None


def check_output(
    source: SourceModel, options: ExportOptions, output: str | Path, *, force: bool
) -> None:
    """Check before the work that an export may be written, and replaces nothing that it reads.

    Raises:
        OutputExistsError: see `check_destination`.
        DataError: the rows for calibration are missing.
        EdgeError: it can't be written.
    """
    data = [request.data for request in (options.calibrate, options.shortlist) if request]
    check_destination(output, force=force, inputs=[source.folder, source.tokenizer_source, *data])
    rows = options.calibrate.data if options.calibrate else None
    if rows is not None and not is_hub(rows) and not rows.exists():
        raise DataError("no such file or folder", path=rows)


def resolve_prompt(source: SourceModel, options: ExportOptions) -> Prompt:
    """The prompt of the options, else that of training, else none.

    Raises:
        UsageError: an invalid template.
    """
    if options.prompt is not None:
        return Prompt.parse(options.prompt)
    template = source.training.get("prompt_template")
    return Prompt(template) if isinstance(template, str) else Prompt()


def resolve_limits(source: SourceModel, options: ExportOptions) -> Limits:
    """The limits of the options, else the input length of training, else 512 tokens each.

    The model's own default length of answers is always allowed, unless the options say less.

    Raises:
        UsageError: a limit of the options is out of range.
    """
    asked = {
        "max_input_tokens": options.max_input_tokens,
        "max_new_tokens": options.max_new_tokens_limit,
    }
    for name, value in asked.items():
        if value is not None and not 1 <= value <= MAX_LIMITS[name]:
            option = name if name == "max_input_tokens" else "max_new_tokens_limit"
            raise UsageError(
                f"--{option.replace('_', '-')} must be from 1 to {MAX_LIMITS[name]:,}, not {value}"
            )
    saved = source.generation.options.get("max_new_tokens", 0)
    return Limits(
        max_input_tokens=options.max_input_tokens
        or _positive_int(source.training.get("max_source_length"))
        or _DEFAULT_INPUT_LIMIT,
        max_new_tokens=options.max_new_tokens_limit or max(saved, _DEFAULT_NEW_TOKENS_LIMIT),
    )


def resolve_generation(
    source: SourceModel, options: ExportOptions, limits: Limits
) -> GenerationOptions:
    """The generation defaults: those of the model folder, overridden by the options.

    Without a length in either, answers have the length of training, or 64 tokens.

    Raises:
        UsageError: an invalid value in the options.
    """
    trained = _positive_int(source.training.get("max_target_length"))
    defaults = source.generation.resolve(trained)
    length = min(defaults.max_new_tokens, limits.max_new_tokens)
    chosen = defaults.override({"max_new_tokens": length}).override(options.generation)
    if chosen.constraint is not None:
        raise UsageError(
            f"{chosen.constraint[0]} can't be a default of an artifact; give it to each call"
        )
    return chosen


def supported_generation(generation: GenerationOptions, format_name: str) -> GenerationOptions:
    """The defaults without beams where a format's engine has none: plain calls would fail."""
    if ENGINES.load(format_name).supports_beams:
        return generation
    copies = generation.num_return_sequences if generation.do_sample else 1
    return dataclasses.replace(
        generation, num_beams=1, num_return_sequences=copies, early_stopping=False
    )


def generation_warnings(
    source: SourceModel, limits: Limits, generation: GenerationOptions, name: str
) -> tuple[str, ...]:
    """The generation settings of the model folder that an artifact does not have.

    Args:
        source: the model.
        limits, generation: the artifact's.
        name: the artifact's format.
    """
    warnings = list(source.generation.warnings)
    warnings += [text for task in source.tasks.values() for text in task.warnings]
    saved = source.generation.options.get("max_new_tokens", 0)
    trained = _positive_int(source.training.get("max_target_length"))
    if not saved and not trained and generation.max_new_tokens == DEFAULT_NEW_TOKENS:
        warnings.append(
            f"{source.folder}: no length of answers is set. They end after {DEFAULT_NEW_TOKENS}"
            f" tokens, in transformers after {_TRANSFORMERS_NEW_TOKENS}; see --max-new-tokens"
        )
    if saved > limits.max_new_tokens:
        warnings.append(
            f"{source.generation.path}: answers of {saved} tokens are longer than"
            f" --max-new-tokens-limit {limits.max_new_tokens}, which is the default now"
        )
    if generation.num_beams > 1 and not ENGINES.load(name).supports_beams:
        warnings.append(
            f"{name} has no beam search: num_beams {generation.num_beams} is left out, and answers"
            " are greedy"
        )
    return tuple(warnings)


def resolve_draft_head(source: SourceModel) -> DraftHead | None:
    """The draft head in the model's folder, or None.

    Raises:
        ModelError: it was fitted for other weights or another tokenizer, or is damaged.
    """
    path = source.folder / DRAFT_HEAD_NAME
    if not os.path.lexists(path):
        return None
    head = read_draft_head(path)
    head.check(
        path,
        d_model=source.architecture.d_model,
        vocab_size=source.architecture.vocab_size,
        weights=source.weights_sha256,
        text=tokenizer_sha256(source),
    )
    return head


def tokenizer_sha256(source: SourceModel) -> str:
    """The sha256 of the model's tokenizer.json."""
    with source.tokenizer_folder() as folder:
        return sha256_of(folder / TOKENIZER_NAME)


def resolve_text_fingerprint(
    source: SourceModel, options: ExportOptions, prompt: Prompt
) -> TextFingerprint:
    """The fingerprint of tokenizer and prompt, compared with the one recorded in training.

    Another prompt than in training is allowed if the options ask for it: a model of several tasks
    may serve one.

    Raises:
        ModelError: tokenizer or prompt differ from those of training, or there is no tokenizer.
    """
    with source.tokenizer_folder() as folder:
        found = TextFingerprint.of(folder / TOKENIZER_NAME, prompt.template)
    recorded = source.training.get("text_path")
    if isinstance(recorded, Mapping):
        known = dict(recorded)
        if options.prompt is not None:
            known.pop("prompt_template", None)
        different = list(found.differences(known))
        if different:
            raise ModelError(
                f"{source.folder}: {'; '.join(different)} ({RECORD_NAME}): the model would see"
                " other tokens than in training. Restore the file, or train again"
            )
    return found


def _positive_int(value: Any) -> int | None:
    """A length of the training record, unless it is no length."""
    return value if type(value) is int and 0 < value <= _MAX_LENGTH else None
