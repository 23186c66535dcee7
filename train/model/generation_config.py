"""Generation settings as transformers' `GenerationConfig`: complete, savable, used alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import ModelError, first_line
from edge.runtime.options import GenerationOptions
from edge.train.model.generation import SAMPLING, SAMPLING_FIELDS, SavedGeneration

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel


def transformers_config(
    options: GenerationOptions,
    *,
    pad: int,
    end: tuple[int, ...],
    start: int,
    unused: range = range(0),
) -> GenerationConfig:
    """The same options as transformers' `GenerationConfig`, complete but for the seed.

    Args:
        options: The options. Stop strings are left out: whoever decodes the text cuts it.
        pad: The id of padding.
        end: The ids that end an answer.
        start: The id that the decoder starts with.
        unused: Ids without text, which are never generated.
    """
    from transformers import GenerationConfig

    sampling = {name: getattr(options, name) for name in SAMPLING if options.do_sample}
    return GenerationConfig(
        max_new_tokens=options.max_new_tokens,
        min_new_tokens=options.min_new_tokens or None,
        num_beams=options.num_beams,
        num_return_sequences=options.num_return_sequences,
        length_penalty=options.length_penalty,
        early_stopping=options.early_stopping,
        do_sample=options.do_sample,
        repetition_penalty=options.repetition_penalty,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        suppress_tokens=list(unused) or None,
        pad_token_id=pad,
        eos_token_id=list(end),
        decoder_start_token_id=start,
        **sampling,
    )


@contextmanager
def only_settings(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Generate with `config` alone: what it leaves open is not taken from the model's own settings.

    Args:
        model: The model, or peft's wrapper around it; its settings are put back at the end.
        config: The complete settings.
    """
    holders: list[Any] = [model]
    if hasattr(model, "get_base_model"):
        holders.append(model.get_base_model())
    own = [holder.generation_config for holder in holders]
    try:
        for holder in holders:
            holder.generation_config = config
        yield
    finally:
        for holder, settings in zip(holders, own, strict=True):
            holder.generation_config = settings


def complete_settings(
    model: PreTrainedModel, saved: SavedGeneration, max_target_length: int
) -> GenerationOptions:
    """Complete the model's own settings, which are saved with it, and return the options.

    Args:
        model: The model; its length of answers is set if the folder has none.
        saved: The settings of its folder.
        max_target_length: The length of answers where the folder has none, in tokens.

    Raises:
        ModelError: transformers could not save the settings.
    """
    options = saved.resolve(max_target_length)
    settings: Any = model.generation_config
    if "max_new_tokens" not in saved.options:
        # Otherwise transformers stops after 20 tokens.
        settings.max_new_tokens = max_target_length
        settings.max_length = None
    # transformers saves no settings that have no effect beside the others.
    unused = ["use_cache", *settings.extra_output_flags]
    unused += SAMPLING_FIELDS if not options.do_sample else ()
    unused += ("early_stopping", "length_penalty") if options.num_beams == 1 else ()
    for name in unused:
        setattr(settings, name, None)
    try:
        settings.validate(strict=True)
    except ValueError as error:
        raise ModelError(
            f"{saved.path}: transformers can't save these settings again ({first_line(error)})."
            " Correct or remove them"
        ) from None
    return options
