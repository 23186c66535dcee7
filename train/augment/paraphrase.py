"""Paraphrases of texts by a T5 model folder, a hub id, or an artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge.runtime.artifact.manifest import MANIFEST_NAME
from edge.runtime.rows import Prompt
from edge.runtime.text.stop_strings import cut_at_stop
from edge.train.model.answers import decoder_start, generate_ids
from edge.train.model.generation import read_generation
from edge.train.model.generation_config import transformers_config
from edge.train.model.local_folder import local_folder
from edge.train.model.training_record import read_training_record

Fields = Mapping[str, object]
_MAX_INPUT_TOKENS = 512  # of a model folder; longer texts are skipped, not cut
_MAX_NEW_TOKENS = 128  # of a model folder without a length


@dataclass(frozen=True)
class Sampling:
    """Sampling options: `count` candidates for each text, drawn with temperature and top-p.

    They replace those of the model; its other generation settings, such as penalties, hold.
    """

    count: int = 2
    temperature: float = 1.0
    top_p: float = 0.95
    max_new_tokens: int | None = None  # None: the model's, or 128 if its folder has none


class Paraphraser(Protocol):
    """A function that paraphrases a batch of texts."""

    def __call__(
        self, texts: Sequence[str], fields: Sequence[Fields], seed: int
    ) -> list[list[str]]:
        """Candidates for each text, in order; none for a text that is too long.

        `fields` holds the rows' columns, for the prompt.
        """


@contextmanager
def open_paraphraser(
    name: str, sampling: Sampling, *, prefix: str | None = None, threads: int | None = None
) -> Iterator[Paraphraser]:
    """Load a paraphrasing model.

    Args:
        name: An artifact, a model folder or a hub id.
        sampling: Sampling options.
        prefix: The prompt, in place of the model's own.
        threads: Threads that an artifact's engine computes with.

    Raises:
        ArtifactError: The artifact cannot be loaded.
        ModelError: The model cannot be loaded.
        UsageError: A sampling option is invalid.
    """
    if (Path(name) / MANIFEST_NAME).is_file():
        from edge.runtime.model import load

        with load(name, threads=threads) as model:
            if prefix is not None:
                model.prompt = Prompt.parse(prefix)
            yield _ArtifactParaphraser(model, sampling)
    else:
        yield _FolderParaphraser(name, sampling, prefix)


class _ArtifactParaphraser:
    def __init__(self, model: Any, sampling: Sampling) -> None:
        self._model = model
        self._options = _options(sampling)

    def __call__(
        self, texts: Sequence[str], fields: Sequence[Fields], seed: int
    ) -> list[list[str]]:
        answers = self._model.generate(
            list(texts),
            fields=list(fields),
            on_long="truncate",
            batch_size=len(texts),
            **{**self._options, "seed": seed % 2**32},
        )
        return [
            []
            if answer.truncated
            else [answer.text, *(other.text for other in answer.alternatives)]
            for answer in answers
        ]


class _FolderParaphraser:
    """Generation by transformers, for a model folder or a hub id."""

    def __init__(self, name: str, sampling: Sampling, prefix: str | None) -> None:
        from edge.train.device import choose_device
        from edge.train.model.loading import load_pretrained

        saved = read_generation(local_folder(name))
        options = saved.resolve(_MAX_NEW_TOKENS).override(_options(sampling))
        self._count, self._stop_strings = options.num_return_sequences, options.stop_strings
        trainable = load_pretrained(name)
        self._device = choose_device().device
        self._model: Any = trainable.model.eval().to(self._device)
        self._tokenizer = trainable.tokenizer
        shape: Any = trainable.model.config
        self._config = transformers_config(
            options,
            pad=shape.pad_token_id,
            end=saved.end_token_ids or (self._tokenizer.eos_token_id,),
            start=decoder_start(trainable.model),
            unused=range(len(self._tokenizer), shape.vocab_size),
        )
        self._prompt = Prompt.parse(prefix) if prefix is not None else _recorded_prompt(name)

    def __call__(
        self, texts: Sequence[str], fields: Sequence[Fields], seed: int
    ) -> list[list[str]]:
        sources = [self._prompt.apply(*pair) for pair in zip(texts, fields, strict=True)]
        ids = self._tokenizer(sources, verbose=False)["input_ids"]
        short = [number for number, row in enumerate(ids) if len(row) <= _MAX_INPUT_TOKENS]
        candidates: list[list[str]] = [[] for _ in texts]
        if not short:
            return candidates
        batch = self._tokenizer([sources[n] for n in short], padding=True, return_tensors="pt")
        answers = generate_ids(self._model, batch.to(self._device), self._config, seed=seed)
        decoded = [
            cut_at_stop(text, self._stop_strings)[0]
            for text in self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        ]
        for place, number in enumerate(short):
            candidates[number] = decoded[place * self._count : (place + 1) * self._count]
        return candidates


def _options(sampling: Sampling) -> dict[str, Any]:
    options: dict[str, Any] = {
        "do_sample": True,
        "num_beams": 1,
        "top_k": 0,
        "num_return_sequences": sampling.count,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.max_new_tokens is not None:
        options["max_new_tokens"] = sampling.max_new_tokens
    return options


def _recorded_prompt(name: str) -> Prompt:
    """The prompt of training, if `edge train` left its record in the folder."""
    template = read_training_record(local_folder(name)).get("prompt_template")
    return Prompt(template) if isinstance(template, str) else Prompt()
