"""What every engine does: generate token ids for a batch, score targets, close.

Engines know token ids only. Text, prompts, limits and checks live once, in `edge.runtime.Model`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edge.runtime.artifact import Artifact
from edge.runtime.errors import ArtifactError, UnsupportedError, UsageError
from edge.runtime.options import GenerationOptions
from edge.runtime.platform.cpu import usable_cores
from edge.runtime.registry import unknown_name

# Called with (row, token id) for each new token, eos included; True ends that row.
TokenCallback = Callable[[int, int], bool]
TokenIds = Sequence[int]


@dataclass(frozen=True)
class Vocabulary:
    """The ids a decoder has to know. Ids from `pieces` up to `size` have no text: never emitted."""

    size: int
    pieces: int
    pad: int
    eos: int
    start: int

    @classmethod
    def of(cls, artifact: Artifact) -> Vocabulary:
        shape = artifact.manifest.architecture
        return cls(
            size=shape.vocab_size,
            pieces=artifact.manifest.tokenizer.pieces,
            pad=shape.pad_token_id,
            eos=shape.eos_token_id,
            start=shape.decoder_start_token_id,
        )


@dataclass(frozen=True)
class Hypothesis:
    """One generated sequence.

    `token_ids` leave out the start token and eos. `score` is the sum of the tokens' natural
    log-probabilities (eos included) divided by their number ** length_penalty. `finish_reason` is
    "eos", "length" or "stop" (ended by the callback). `steps` counts the decoder's steps where
    tokens were drafted (see prompt_lookup_num_tokens); else each token was a step.
    """

    token_ids: tuple[int, ...]
    score: float
    finish_reason: str
    steps: int | None = None


class Engine(abc.ABC):
    """A loaded artifact of one format.

    Subclasses take an `Artifact` and a number of threads; what they can't do raises
    `UnsupportedError` naming the engines that can.
    """

    format: ClassVar[str]
    # False: `Model` lets one call in at a time.
    thread_safe: ClassVar[bool] = False
    # True: calls of several threads compute at the same time, each with `threads` threads.
    concurrent: ClassVar[bool] = False
    supports_beams: ClassVar[bool] = True
    supports_prompt_lookup: ClassVar[bool] = False
    # What the manifest's `runtime` section may set beside threads → its values, the default first.
    settings: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @abc.abstractmethod
    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        """Load the model files. `threads` None takes the manifest's tuned number, or one."""

    @abc.abstractmethod
    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
    ) -> list[list[Hypothesis]]:
        """Generate for a batch of unpadded source ids (eos included).

        Returns, for each row, `options.num_return_sequences` hypotheses, best first. `on_token`
        needs greedy search or sampling with one sequence per row.
        """

    @abc.abstractmethod
    def score(
        self, input_ids: Sequence[TokenIds], target_ids: Sequence[TokenIds]
    ) -> list[np.ndarray]:
        """Natural log-probability of every target token given source and the tokens before it.

        `target_ids` are unpadded and without the start token; eos counts like any other token.
        Returns one float32 array of len(target) per row.
        """

    @classmethod
    def tunable(cls, threads: Sequence[int]) -> list[dict[str, Any]]:
        """The settings worth measuring on a machine, for the numbers of threads that may be tried.

        Each is what the manifest's `runtime` section may hold; of two that are equally fast, the
        earlier is to be preferred.
        """
        return [{"threads": number} for number in threads]

    @property
    @abc.abstractmethod
    def threads(self) -> int:
        """How many threads compute."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free the model. Calling it twice does no harm."""

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Refuse settings that this engine has not.

        Raises:
            UsageError: an unknown name or a value that the setting can't have.
        """
        for name, value in settings.items():
            if name not in cls.settings:
                raise UsageError(unknown_name(f"{cls.format} setting", name, (*cls.settings,)))
            if not _among(value, cls.settings[name]):
                raise UsageError(f"{name} must be {_either(cls.settings[name])}, not {value!r}")

    def check_options(self, options: GenerationOptions) -> None:
        """Refuse what this engine can't do, naming those that can.

        Raises:
            UnsupportedError: beams, where the engine has none.
        """
        if options.num_beams > 1 and not self.supports_beams:
            raise UnsupportedError(
                f"{self.format} artifacts have no beam search: use num_beams 1, or an artifact of"
                " format onnx, ctranslate2 or torchscript"
            )


def choose_threads(artifact: Artifact, threads: int | None) -> int:
    """The caller's number of threads, else the tuned one, else 1.

    One thread is the default because it is never far from the best for one short query, while too
    many can double the time on a shared machine. An artifact that was tuned elsewhere gets no more
    threads than there are cores here.

    Raises:
        ArtifactError: the manifest's number is none.
    """
    if threads is not None:
        return threads
    tuned = artifact.manifest.runtime.get("threads", 1)
    if type(tuned) is not int or tuned < 1:
        raise _wrong_setting(artifact, "threads", "a whole number from 1 on", tuned)
    return min(tuned, usable_cores())


def choose_setting(artifact: Artifact, name: str, values: Sequence[Any]) -> Any:
    """A setting of the manifest's `runtime` section: one of `values`, by default the first.

    Raises:
        ArtifactError: the manifest holds something else.
    """
    chosen = artifact.manifest.runtime.get(name, values[0])
    if not _among(chosen, values):
        raise _wrong_setting(artifact, name, _either(values), chosen)
    return chosen


def _among(value: object, values: Sequence[Any]) -> bool:
    """Whether it is one of them, of the same type: 1 is not True."""
    return any(type(value) is type(known) and value == known for known in values)


def _either(values: Sequence[Any]) -> str:
    return " or ".join(str(value) for value in values)


def _wrong_setting(artifact: Artifact, name: str, wanted: str, found: object) -> ArtifactError:
    return ArtifactError(
        f"{artifact.folder}: runtime.{name} in edge.json must be {wanted}, not {found!r:.40};"
        " edge tune sets it anew"
    )


def greedy_hypotheses(
    tokens: np.ndarray,
    lengths: np.ndarray,
    log_probs: np.ndarray,
    finished: np.ndarray,
    length_penalty: float,
) -> list[list[Hypothesis]]:
    """What a greedy loop inside of a model file returns, as hypotheses.

    `tokens` [batch, steps], `lengths` [batch] with eos counted, `log_probs` [batch] sums,
    `finished` [batch] whether the row ended with eos.
    """
    groups = []
    for row, length, total, ended in zip(tokens, lengths, log_probs, finished, strict=True):
        ids = row[: length - 1] if ended else row[:length]
        score = float(total) / int(length) ** length_penalty
        groups.append([Hypothesis(tuple(ids.tolist()), score, "eos" if ended else "length")])
    return groups


def pad_batch(
    rows: Sequence[TokenIds], pad: int, *, dtype: type = np.int64
) -> tuple[np.ndarray, np.ndarray]:
    """Right-pad rows to one length: (ids [batch, length], mask [batch, length] of 0 and 1)."""
    length = max(len(row) for row in rows)
    ids: np.ndarray = np.full((len(rows), length), pad, dtype=dtype)
    mask: np.ndarray = np.zeros((len(rows), length), dtype=dtype)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask
