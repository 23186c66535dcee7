"""Other wordings of a text, from a T5 model folder, a hub id, or an artifact of our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge.runtime.artifact.manifest import MANIFEST_NAME
from edge.runtime.platform.json_file import read_json
from edge.runtime.rows import Prompt
from edge.train.output.record import RECORD_NAME

Fields = Mapping[str, object]
_MAX_RECORD_BYTES = 64 << 20
_MAX_INPUT_TOKENS = 512  # of a model folder; longer texts are passed over, not cut


@dataclass(frozen=True)
class Sampling:
    """`count` candidates for each text, drawn with this temperature and top_p."""

    count: int = 2
    temperature: float = 1.0
    top_p: float = 0.95
    max_new_tokens: int | None = None  # as the artifact says; 128 for a model folder


class Paraphraser(Protocol):
    """Candidates for each text of a batch, in order; none for a text that is too long."""

    def __call__(
        self, texts: Sequence[str], fields: Sequence[Fields], seed: int
    ) -> list[list[str]]: ...


@contextmanager
def open_paraphraser(
    name: str, sampling: Sampling, *, prefix: str | None = None, threads: int | None = None
) -> Iterator[Paraphraser]:
    """The model called `name`; `prefix` is put before each text in place of the model's own.

    Raises:
        ArtifactError, ModelError: it can't be loaded.
        UsageError: a sampling option that can't be used.
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
    """transformers' own generation, for a folder or hub id that was not compiled."""

    def __init__(self, name: str, sampling: Sampling, prefix: str | None) -> None:
        from edge.runtime.options import GenerationOptions
        from edge.train.device import choose_machine
        from edge.train.model.loading import load_pretrained

        self._options = _options(sampling)
        GenerationOptions().override(self._options)  # the same refusals as an artifact's
        trainable = load_pretrained(name)
        self._device = choose_machine().device
        self._model: Any = trainable.model.eval().to(self._device)
        self._tokenizer = trainable.tokenizer
        self._prompt = Prompt.parse(prefix) if prefix is not None else _recorded_prompt(name)

    def __call__(
        self, texts: Sequence[str], fields: Sequence[Fields], seed: int
    ) -> list[list[str]]:
        import torch

        sources = [self._prompt.apply(*pair) for pair in zip(texts, fields, strict=True)]
        ids = self._tokenizer(sources, verbose=False)["input_ids"]
        short = [number for number, row in enumerate(ids) if len(row) <= _MAX_INPUT_TOKENS]
        candidates: list[list[str]] = [[] for _ in texts]
        if not short:
            return candidates
        batch = self._tokenizer([sources[n] for n in short], padding=True, return_tensors="pt")
        count = self._options["num_return_sequences"]
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            answers = self._model.generate(
                input_ids=batch["input_ids"].to(self._device),
                attention_mask=batch["attention_mask"].to(self._device),
                num_beams=1,
                top_k=0,
                **{"max_new_tokens": 128, **self._options},
            )
        decoded = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        for place, number in enumerate(short):
            candidates[number] = decoded[place * count : (place + 1) * count]
        return candidates


def _options(sampling: Sampling) -> dict[str, Any]:
    options: dict[str, Any] = {
        "do_sample": True,
        "num_return_sequences": sampling.count,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.max_new_tokens is not None:
        options["max_new_tokens"] = sampling.max_new_tokens
    return options


def _recorded_prompt(name: str) -> Prompt:
    """What the model was trained with, where `edge train` left its record."""
    try:
        record = read_json(Path(name) / RECORD_NAME, _MAX_RECORD_BYTES)
        template = record["prompt_template"]
    except (OSError, ValueError, KeyError, TypeError):
        return Prompt()
    return Prompt(template) if isinstance(template, str) else Prompt()
