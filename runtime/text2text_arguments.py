"""Arguments of transformers' text2text pipelines, translated to those of `Model.generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge.runtime.errors import UsageError
from edge.runtime.guardrails import OnLong
from edge.runtime.options import GenerationOptions

# The defaults of transformers' pipelines, whatever the model's own are.
NUM_BEAMS, MAX_NEW_TOKENS = 4, 256
_MAX_BATCH = 1 << 16
# How transformers spells them, by what they mean here; None is the model's choice.
_TRUNCATION: Mapping[object, OnLong | None] = {
    None: None,
    True: "truncate",
    False: None,
    "longest_first": "truncate",
    "only_first": "truncate",
    "do_not_truncate": None,
}
# Argument → what to use in its place.
_UNSUPPORTED = {
    "assistant_model": "prompt_lookup_num_tokens drafts from the input",
    "generation_config": "give its fields as arguments",
    "return_type": "use return_tensors=True for token ids",
    "src_lang": "T5 has no such argument: use the task 'translation_xx_to_yy'",
    "stop_sequence": "use stop_strings, which ends an answer before the whole text",
    "tgt_lang": "T5 has no such argument: use the task 'translation_xx_to_yy'",
}
# Argument → values that change nothing: those of transformers when it does not sample.
_SAMPLING = {"temperature": (1.0,), "top_k": (0, 50), "top_p": (1.0,), "seed": (0,)}

# Argument of transformers' `pipeline` → the values that change nothing here.
_FIXED: Mapping[str, tuple[str, ...]] = {
    "config": (),
    "device": ("-1", "cpu"),
    "device_map": ("cpu",),
    "dtype": ("auto",),
    "feature_extractor": (),
    "framework": (),
    "image_processor": (),
    "model_kwargs": ("{}",),
    "pipeline_class": (),
    "processor": (),
    "token": (),
    "torch_dtype": ("auto",),
    "trust_remote_code": ("False",),
    "use_fast": ("True",),
}
_REASONS = {
    "device": "artifacts run on the CPU",
    "device_map": "artifacts run on the CPU",
    "dtype": "the artifact's quantization decides",
    "torch_dtype": "the artifact's quantization decides",
    "token": "set HF_TOKEN, or run hf auth login",
    "trust_remote_code": "artifacts hold no such code",
}


@dataclass(frozen=True)
class Arguments:
    """Arguments of a pipeline, or of one call of it.

    Attributes:
        options: Generation options by name.
        on_long: What to do with an input over the limit; None takes the guardrails' choice.
        batch_size: Number of texts in one run of the engine.
        tensors: Whether to return token ids in place of texts.
        clean_up: Whether to remove spaces before punctuation and contractions.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    on_long: OnLong | None = None
    batch_size: int = 1
    tensors: bool = False
    clean_up: bool = False

    def override(self, values: Mapping[str, Any]) -> Arguments:
        """A copy with arguments under the names of transformers' pipelines replaced.

        Args:
            values: Arguments by name. None keeps the current value.

        Raises:
            UsageError: An unsupported argument, an invalid value, or two that contradict each
                other. Names of generation options are checked by `Model.generate`.
        """
        given = {name: value for name, value in values.items() if value is not None}
        for name, instead in _UNSUPPORTED.items():
            if name in given:
                raise UsageError(f"{name} is not supported: {instead}")
        if given.pop("num_workers", 0) != 0:
            raise UsageError("num_workers is not supported: the engine computes with `threads`")
        changes: dict[str, Any] = {}
        if "truncation" in given:
            changes["on_long"] = _truncation(given.pop("truncation"))
        if "batch_size" in given:
            changes["batch_size"] = _whole("batch_size", given.pop("batch_size"), _MAX_BATCH)
        if "clean_up_tokenization_spaces" in given:
            changes["clean_up"] = _flag(given, "clean_up_tokenization_spaces")
        changes |= _returned(given)
        options = {**self.options, **given}
        for total, new, least in (
            ("max_length", "max_new_tokens", 1),
            ("min_length", "min_new_tokens", 0),
        ):
            if total in given:
                if new in given:
                    raise UsageError(f"{total} and {new} are two names of one limit; give one")
                del options[total]
                # As in transformers, the length counts the token that the decoder starts with.
                options[new] = max(least, _whole(total, given[total], 1 << 16) - 1)
        most = options.get("max_new_tokens")
        if not {"min_new_tokens", "min_length"} & given.keys() and type(most) is int:
            # The maximum wins over a minimum that this call does not give.
            options["min_new_tokens"] = min(options.get("min_new_tokens", 0), most)
        return replace(self, options=options, **changes)


def pipeline_defaults(own: GenerationOptions, *, beams: bool, limit: int) -> dict[str, Any]:
    """The options that pipelines have in place of the model's, as in transformers.

    Args:
        own: The model's options.
        beams: Whether the engine has beam search; without it, search is greedy.
        limit: The most new tokens of the artifact.
    """
    most = min(MAX_NEW_TOKENS, limit)
    return {
        "max_new_tokens": most,
        "min_new_tokens": min(own.min_new_tokens, most),
        "num_beams": NUM_BEAMS if beams else 1,
    }


def task_options(values: Mapping[str, Any], *, beams: bool, limit: int) -> dict[str, Any]:
    """The generation options of a task's entry in the manifest, within the artifact's limits.

    Args:
        values: The entry.
        beams: Whether the engine has beam search.
        limit: The most new tokens of the artifact.
    """
    left_out = {"prefix"} if beams else {"prefix", "num_beams", "early_stopping"}
    options = {name: value for name, value in values.items() if name not in left_out}
    for name in ("max_new_tokens", "min_new_tokens"):
        if name in options:
            options[name] = min(options[name], limit)
    return options


def without_fixed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of transformers' `pipeline` without those that change nothing here.

    Args:
        arguments: All arguments by name.

    Raises:
        UsageError: One of them has a value that asks for a change.
    """
    for name, neutral in _FIXED.items():
        value = arguments.get(name)
        if value is not None and str(value) not in neutral:
            reason = _REASONS.get(name, "an artifact has all that it needs")
            raise UsageError(f"{name}={value!r:.80} is not supported: {reason}; leave it out")
    return {name: value for name, value in arguments.items() if name not in _FIXED}


def check_effects(values: Mapping[str, Any], options: GenerationOptions) -> None:
    """Check that no argument is idle: those of sampling without it, of beams with one.

    Args:
        values: The arguments of a call, or of the pipeline.
        options: All options that result.

    Raises:
        UsageError: One is, and has not the value that changes nothing.
    """
    idle = [name for name, neutral in _SAMPLING.items() if values.get(name) not in (None, *neutral)]
    if idle and not options.do_sample:
        raise UsageError(
            f"{' and '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect without"
            " sampling; add do_sample=True and num_beams=1, or leave it out"
        )
    penalty = values.get("length_penalty")
    if penalty not in (None, 1.0) and options.num_beams == 1:
        raise UsageError(
            "length_penalty has no effect with one beam; use num_beams above 1, or leave it out"
        )


def _truncation(value: object) -> OnLong | None:
    name = getattr(value, "value", value)  # transformers' TruncationStrategy
    if not isinstance(name, str | bool) or name not in _TRUNCATION:
        known = ", ".join(repr(one) for one in _TRUNCATION if one is not None)
        raise UsageError(f"truncation must be one of {known}, not {value!r:.80}")
    return _TRUNCATION[name]


def _returned(given: dict[str, Any]) -> dict[str, bool]:
    """Take return_tensors and return_text out of the arguments: exactly one is returned."""
    named = {
        name: _flag(given, name) for name in ("return_tensors", "return_text") if name in given
    }
    if not named:
        return {}
    tensors = named.get("return_tensors", not named.get("return_text", True))
    if named.get("return_text", not tensors) == tensors:
        raise UsageError("return_tensors and return_text must differ: an answer is one of the two")
    return {"tensors": tensors}


def _flag(given: dict[str, Any], name: str) -> bool:
    value = given.pop(name)
    if type(value) is not bool:
        raise UsageError(f"{name} must be true or false, not {value!r:.80}")
    return value


def _whole(name: str, value: object, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise UsageError(f"{name} must be a whole number from 1 to {most}, not {value!r:.80}")
    return value
