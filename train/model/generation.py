"""Generation settings of a model folder, in generation_config.json or an old config.json.

Read once, so that training's evaluation, the reference of parity, the benchmark and the artifact
answer with the same settings. Settings that the engines don't have are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge.runtime.artifact.architecture import MAX_END_TOKENS
from edge.runtime.errors import ModelError, UsageError
from edge.runtime.options import GenerationOptions
from edge.train.model.training_record import require_json_object

GENERATION_CONFIG, MODEL_CONFIG = "generation_config.json", "config.json"
_TASKS = "task_specific_params"
_MAX_TOKENS = 1 << 16
DEFAULT_NEW_TOKENS = 64  # where neither the folder nor a training says

# The fields of transformers' GenerationConfig, by what happens to them.
_LENGTHS = ("max_length", "max_new_tokens", "min_length", "min_new_tokens")
_KEPT = (
    "num_beams",
    "num_return_sequences",
    "length_penalty",
    "early_stopping",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "prompt_lookup_num_tokens",
    "stop_strings",
)
SAMPLING = ("temperature", "top_k", "top_p")
_TOKEN_IDS = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
# Field → the values that change nothing; None changes nothing in any field.
UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "constraints": ([],),
    "diversity_penalty": (0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1,),
    "max_time": (),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "renormalize_logits": (False,),
    "sequence_bias": ([], {}),
    "suppress_tokens": ([],),
    "token_healing": (False,),
    "watermarking_config": (),
}
# These, too, but they act on samples only.
UNSUPPORTED_SAMPLING: Mapping[str, tuple[object, ...]] = {
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "min_p": (0,),
    "top_h": (),
    "typical_p": (1,),
}
SAMPLING_FIELDS = (*SAMPLING, *UNSUPPORTED_SAMPLING)
# They change how the answer is computed or returned, never the answer.
WITHOUT_EFFECT = frozenset(
    {
        "assistant_confidence_threshold",
        "assistant_early_exit",
        "assistant_ensemble_weight",
        "assistant_lookbehind",
        "bos_token_id",  # the decoder starts with decoder_start_token_id
        "cache_config",
        "cache_implementation",
        "compile_config",
        "continuous_batching_config",
        "disable_compile",
        "is_assistant",
        "low_memory",
        "max_cache_len",
        "max_matching_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "prefill_chunk_size",
        "remove_invalid_values",
        "return_dict_in_generate",
        "speculation_type",
        "target_lookbehind",
        "transformers_version",
        "use_cache",
        "use_mtp",
    }
)
KNOWN_FIELDS = frozenset(
    (*_LENGTHS, *_KEPT, *_TOKEN_IDS, *UNSUPPORTED, *UNSUPPORTED_SAMPLING, *WITHOUT_EFFECT)
)


@dataclass(frozen=True)
class SavedGeneration:
    """The generation settings of a model folder.

    Attributes:
        path: The file that holds them.
        values: The settings of that file under transformers' names, without those that are null.
        options: The supported ones, under the names of `GenerationOptions`.
        token_ids: pad_token_id and decoder_start_token_id, where the file has them.
        end_token_ids: The ids that end an answer; empty if the file has none.
        warnings: Sentences on the settings that are not honored, or none.
    """

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    token_ids: Mapping[str, int] = field(default_factory=dict)
    end_token_ids: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()

    def resolve(self, max_new_tokens: int | None = None) -> GenerationOptions:
        """All options; `max_new_tokens` is the length of answers where the file has none."""
        return _resolve(self.options, max_new_tokens or DEFAULT_NEW_TOKENS)


def _resolve(options: Mapping[str, Any], max_new_tokens: int) -> GenerationOptions:
    options = {"max_new_tokens": max_new_tokens, **options}
    if "min_new_tokens" in options:  # as in transformers, the maximum wins
        options["min_new_tokens"] = min(options["min_new_tokens"], options["max_new_tokens"])
    return GenerationOptions().override(options)


def read_generation(folder: str | Path) -> SavedGeneration:
    """Read the generation settings of a local folder.

    As in transformers 5, those of config.json count only if there is no generation_config.json.
    `max_length` and `min_length` count the start token, `max_new_tokens` does not and wins.

    Returns:
        Empty settings if the folder does not exist.

    Raises:
        ModelError: A file is not a JSON object, or a setting has an invalid value.
    """
    path = Path(folder) / GENERATION_CONFIG
    if not path.is_file():
        path = Path(folder) / MODEL_CONFIG
        if not path.is_file():
            return SavedGeneration(path)
    own = path.name == GENERATION_CONFIG  # config.json also describes the model
    found = require_json_object(path)
    values = {
        name: value
        for name, value in found.items()
        if value is not None and (name in KNOWN_FIELDS if not own else not name.startswith("_"))
    }
    settings = _Reader(path, values).read()
    if found.get("eos_token_id", 1) in (None, []):
        note = (
            f"{path}: eos_token_id is {'null' if found['eos_token_id'] is None else '[]'}, for"
            " which transformers never ends an answer; here the eos_token_id of config.json does,"
            " or 1"
        )
        settings = replace(settings, warnings=(*settings.warnings, note))
    return settings


def read_task_settings(folder: str | Path) -> dict[str, SavedGeneration]:
    """Read `task_specific_params` of a local folder's config.json: settings of single tasks.

    T5's own checkpoints have them for "summarization" and "translation_en_to_fr", for example. The
    prefix of a task is `values["prefix"]`, as transformers' pipelines put it before the text.

    Returns:
        The settings by task; empty without config.json.

    Raises:
        ModelError: The file is not a JSON object, or a setting has an invalid value.
    """
    path = Path(folder) / MODEL_CONFIG
    tasks = require_json_object(path).get(_TASKS) if path.is_file() else None
    if tasks is None:
        return {}
    if not isinstance(tasks, dict) or not all(isinstance(one, dict) for one in tasks.values()):
        raise ModelError(f"{path}: {_TASKS} must be an object of objects. Correct or remove it")
    found = {}
    for task, values in tasks.items():
        where = Path(f"{path}: {_TASKS}.{task}")
        prefix = values.get("prefix")
        if prefix is not None and not isinstance(prefix, str):
            raise ModelError(f"{where}.prefix must be a text. Correct or remove it")
        known = {n: v for n, v in values.items() if n != "prefix" and v is not None}
        settings = _Reader(where, known).read()
        found[task] = replace(settings, values=values)
    return found


class _Reader:
    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self._path = path
        self._values = values

    def read(self) -> SavedGeneration:
        unsupported = [f"{name} {value!r:.40}" for name, value in self._unsupported()]
        options = self._options(unsupported)
        try:
            _resolve(options, DEFAULT_NEW_TOKENS)
        except UsageError as error:
            raise self._error(str(error)) from None
        warnings: tuple[str, ...] = ()
        if unsupported:
            warnings = (
                f"{self._path}: not supported and left out: {', '.join(unsupported)}."
                " Answers can differ from transformers'",
            )
        return SavedGeneration(
            self._path,
            self._values,
            options,
            {n: self._token_id(n, v) for n, v in self._values.items() if n in _TOKEN_IDS[::2]},
            self._end_token_ids(),
            warnings,
        )

    def _options(self, unsupported: list[str]) -> dict[str, Any]:
        values = self._values
        options: dict[str, Any] = {name: values[name] for name in _KEPT if name in values}
        # Both lengths count the start token.
        for total, new, least in (
            ("max_length", "max_new_tokens", 1),
            ("min_length", "min_new_tokens", 0),
        ):
            if new in values:
                options[new] = self._length(new, least)
            elif total in values:
                options[new] = max(least, self._length(total, least) - 1)
        if options.get("early_stopping") == "never":
            unsupported.append("early_stopping 'never'")
            del options["early_stopping"]
        if options.get("num_beams", 1) != 1 and options.get("do_sample") is True:
            unsupported.append("do_sample with num_beams above 1")
            del options["do_sample"]
        if not options.get("do_sample"):
            for name in SAMPLING:  # without effect, and old files have any values
                options.pop(name, None)
        return options

    def _unsupported(self) -> Iterator[tuple[str, Any]]:
        fields = dict(UNSUPPORTED)
        if self._values.get("do_sample") is True:
            fields |= UNSUPPORTED_SAMPLING
        for name, value in self._values.items():
            if name in fields:
                if not any(value == neutral for neutral in fields[name]):
                    yield name, value
            elif name not in KNOWN_FIELDS:
                yield name, value

    def _length(self, name: str, least: int) -> int:
        value = self._values[name]
        if type(value) is not int or not least <= value <= _MAX_TOKENS:
            raise self._error(
                f"{name} must be a whole number from {least} to {_MAX_TOKENS}, not {value!r:.80}"
            )
        return value

    def _end_token_ids(self) -> tuple[int, ...]:
        value = self._values.get("eos_token_id")
        if value is None:
            return ()
        ids = value if isinstance(value, list) else [value]
        if len(ids) > MAX_END_TOKENS:
            raise self._error(f"eos_token_id has {len(ids)} ids, at most {MAX_END_TOKENS}")
        return tuple(dict.fromkeys(self._token_id("eos_token_id", one) for one in ids))

    def _token_id(self, name: str, value: Any) -> int:
        if type(value) is not int or value < 0:
            raise self._error(f"{name} must be a token id, not {value!r:.80}")
        return value

    def _error(self, problem: str) -> ModelError:
        return ModelError(f"{self._path}: {problem}. Correct or remove it")
