"""`pipeline`: the text2text pipelines that transformers 5 removed, on an artifact.

Calls, arguments and results are those of transformers 4.57 (`transformers/pipelines/
text2text_generation.py`): "text2text-generation", "summarization" and "translation_xx_to_yy".
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from edge.runtime.errors import UsageError
from edge.runtime.generation import Generation
from edge.runtime.guardrails import Guardrails
from edge.runtime.model import Model, load
from edge.runtime.registry import unknown_name
from edge.runtime.text2text_arguments import (
    Arguments,
    check_effects,
    pipeline_defaults,
    task_options,
    without_fixed,
)

_TASKS = {  # task → first word of the keys of its results
    "text2text-generation": "generated",
    "summarization": "summary",
    "translation": "translation",
}
_TRANSLATION = re.compile(r"translation_[^_]+_to_[^_]+")
# What transformers' `clean_up_tokenization` replaces, in its order.
_CLEAN_UP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)

Text = str | Mapping[str, object]
Result = dict[str, Any]


def pipeline(
    task: str,
    model: str | Path | Model | None = None,
    *,
    tokenizer: object = None,
    revision: str | None = None,
    threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    verify: bool = False,
    trust_code: bool = False,
    guardrails: Guardrails | None = None,
    **arguments: Any,
) -> Text2TextPipeline:
    """A pipeline as transformers 4's `pipeline(task, model)`, on an artifact and without torch.

    Args:
        task: "text2text-generation", "summarization", "translation" or "translation_xx_to_yy",
            such as "translation_en_to_fr".
        model: The artifact folder, OWNER/NAME on the Hugging Face hub, or a loaded `Model`.
        tokenizer: None or the same as `model`: an artifact has its tokenizer.
        revision: See `load`.
        threads: See `load`.
        settings: See `load`.
        verify: See `load`.
        trust_code: See `load`.
        guardrails: See `load`.
        **arguments: Defaults of the arguments of a call; see `Text2TextPipeline`. Those that
            transformers' `pipeline` has for other devices, types and classes are accepted where
            they change nothing, such as `device=-1`.

    Raises:
        UsageError: Unknown task, no model, or an argument that is unknown, invalid or without
            effect.
        ArtifactError: See `load`.
        MissingExtraError: See `load`.
        UnsupportedError: The engine can't do what the arguments ask for.

    Example:
        >>> from edge.runtime import pipeline
        >>> rewrite = pipeline("text2text-generation", model="artifacts/onnx-int8")
        >>> rewrite("what is the uh the capital of France")
        [{'generated_text': 'What is the capital of France?'}]
    """
    _check_task(task)
    if model is None:
        raise UsageError(f"pipeline({task!r}) needs a model: an artifact folder or a hub id")
    if tokenizer is not None and str(tokenizer) != str(model):
        raise UsageError("tokenizer is not supported: the artifact has its own; leave it out")
    arguments = without_fixed(arguments)
    if isinstance(model, Model):
        chosen = (revision, threads, settings, guardrails)
        if any(value is not None for value in chosen) or verify or trust_code:
            raise UsageError("the model is loaded already: give these arguments to load()")
        return Text2TextPipeline(task, model, **arguments)
    loaded = load(
        model,
        revision=revision,
        threads=threads,
        settings=settings,
        verify=verify,
        trust_code=trust_code,
        guardrails=guardrails,
    )
    try:
        return Text2TextPipeline(task, loaded, **arguments)
    except BaseException:
        loaded.close()
        raise


class Text2TextPipeline:
    """A text2text pipeline, made by `pipeline`. Close it, or use it in a `with` statement.

    Defaults are those of transformers' pipelines: 4 beams (greedy search where the engine has no
    beams) and at most 256 new tokens; then the artifact's `task_specific_params` for this task;
    then the arguments. The prompt is the artifact's own. If it has none, the task's prefix is put
    before each text, such as "summarize: ".

    Attributes:
        task: The task.
        model: The loaded artifact.
        prefix: The text put before each input.
    """

    def __init__(self, task: str, model: Model, **arguments: Any) -> None:
        """Check the arguments.

        Args:
            task: See `pipeline`.
            model: The loaded artifact.
            **arguments: See `__call__`.

        Raises:
            UsageError: Unknown task, or an unknown or invalid argument.
            UnsupportedError: The engine can't do what the arguments ask for.
        """
        _check_task(task)
        self.task = task
        self.model = model
        values = model.artifact.manifest.task_specific_params.get(task, {})
        has_prompt = model.prompt.template != "{input}"
        self.prefix: str = "" if has_prompt else values.get("prefix", "")
        beams, limit = model.engine.supports_beams, model.limits.max_new_tokens
        options = pipeline_defaults(model.defaults, beams=beams, limit=limit)
        options |= task_options(values, beams=beams, limit=limit)
        self._arguments = self._override(Arguments(options), arguments)

    def __call__(self, inputs: Text | Iterable[Text], **arguments: Any) -> Any:
        """Answer a text, a list of texts, or any other iterable of texts.

        Args:
            inputs: A text; or a dict with the text as "input" or "text", and the values of the
                prompt's other fields; or a list, generator or data set of them.
            **arguments: Fields of `GenerationOptions`; `max_length` and `min_length`, which count
                the token that the decoder starts with; and `truncation`, `batch_size`,
                `return_tensors`, `return_text`, `clean_up_tokenization_spaces`.

        Returns:
            For a text a list of `num_return_sequences` dicts with the key "generated_text",
            "summary_text" or "translation_text". For a list of texts a list of dicts, or of such
            lists with several sequences. For another iterable an iterator of such lists, which
            reads `batch_size` texts at a time. With `return_tensors=True` the key ends in
            "_token_ids", and the value is a numpy int64 array [tokens] with the start token and
            eos, without padding.

        Raises:
            UsageError: An input is no text, an unknown or invalid argument, or the pipeline is
                closed.
            InputTooLongError: An input over the limit, unless `truncation` is true.
            UnsupportedError: The engine can't do what the arguments ask for.
        """
        chosen = self._override(self._arguments, arguments)
        if isinstance(inputs, str | Mapping):
            return self._answer([inputs], chosen)[0]
        if isinstance(inputs, list):
            found = self._answer(inputs, chosen)
            if all(isinstance(one, str) for one in inputs) and all(len(one) == 1 for one in found):
                return [one for [one] in found]
            return found
        if isinstance(inputs, set | frozenset | bytes | bytearray):
            raise UsageError(
                f"inputs must be a text, a dict, a list or an iterator of them, not a"
                f" {type(inputs).__name__}; use a list"
            )
        if not isinstance(inputs, Iterable) and not hasattr(inputs, "__getitem__"):
            raise UsageError(f"inputs must be texts, not {type(inputs).__name__}")
        return self._stream(iter(inputs), chosen)

    def _override(self, before: Arguments, values: Mapping[str, Any]) -> Arguments:
        chosen = before.override(values)
        try:
            options = self.model.options(chosen.options)
        except UsageError as error:
            if chosen.options.get("do_sample") and "num_beams" not in values:
                raise UsageError(f"{error}: add num_beams=1, as pipelines have 4 beams") from None
            raise
        self.model.engine.check_options(options)
        check_effects(values, options)
        return chosen

    def _stream(self, inputs: Iterator[Text], chosen: Arguments) -> Iterator[list[Result]]:
        while batch := list(itertools.islice(inputs, chosen.batch_size)):
            yield from self._answer(batch, chosen)

    def _answer(self, inputs: list[Text], chosen: Arguments) -> list[list[Result]]:
        pairs = [_text_and_fields(one) for one in inputs]
        answers = self.model.generate(
            [self.prefix + text for text, _ in pairs],
            fields=[fields for _, fields in pairs],
            on_long=chosen.on_long,
            batch_size=chosen.batch_size,
            **chosen.options,
        )
        return [
            [
                self._result(one, chosen)
                for one in (replace(best, alternatives=()), *best.alternatives)
            ]
            for best in answers
        ]

    def _result(self, answer: Generation, chosen: Arguments) -> Result:
        name = "translation" if self.task.startswith("translation") else _TASKS[self.task]
        if not chosen.tensors:
            return {f"{name}_text": _clean_up(answer.text) if chosen.clean_up else answer.text}
        shape = self.model.artifact.manifest.architecture
        end = answer.end_token_ids[-1:] if answer.finish_reason == "eos" else ()
        ids = [shape.decoder_start_token_id, *answer.token_ids, *end]
        return {f"{name}_token_ids": np.array(ids, np.int64)}

    def close(self) -> None:
        """Close the model. Closing twice is harmless."""
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_task(task: object) -> None:
    if not isinstance(task, str) or (task not in _TASKS and not _TRANSLATION.fullmatch(task)):
        raise UsageError(unknown_name("task", str(task), (*_TASKS, "translation_xx_to_yy")))


def _text_and_fields(one: object) -> tuple[str, Mapping[str, object]]:
    if isinstance(one, str):
        return one, {}
    if isinstance(one, Mapping):
        texts = [one[name] for name in ("input", "text") if name in one]
        if len(texts) == 1 and isinstance(texts[0], str):
            return texts[0], one
        raise UsageError('a dict of inputs needs a text under "input" or "text", not both')
    raise UsageError(f"an input must be a text or a dict, not {type(one).__name__}")


def _clean_up(text: str) -> str:
    for before, after in _CLEAN_UP:
        text = text.replace(before, after)
    return text
