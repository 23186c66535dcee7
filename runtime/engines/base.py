"""The engine interface: generate token ids for a batch, score targets, close.

Engines work on token ids only. Text, prompts, limits and checks belong to `edge.runtime.Model`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edge.runtime.artifact import Artifact
from edge.runtime.engines.matcher import Matcher
from edge.runtime.errors import ArtifactError, UnsupportedError, UsageError
from edge.runtime.options import GenerationOptions
from edge.runtime.platform.cpu import usable_cores
from edge.runtime.registry import unknown_name

# Called with (row, token id) for each new token, eos included; returning True ends that row.
TokenCallback = Callable[[int, int], bool]
TokenIds = Sequence[int]


@dataclass(frozen=True)
class Vocabulary:
    """Vocabulary size and special ids.

    Ids from `pieces` up to `size` have no text and are never emitted. `ends` are the ids that end
    an answer; empty stands for `eos` alone.
    """

    size: int
    pieces: int
    pad: int
    eos: int
    start: int
    ends: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", self.ends or (self.eos,))

    @classmethod
    def of(cls, artifact: Artifact) -> Vocabulary:
        """The vocabulary of an artifact."""
        shape = artifact.manifest.architecture
        return cls(
            size=shape.vocab_size,
            pieces=artifact.manifest.tokenizer.pieces,
            pad=shape.pad_token_id,
            eos=shape.eos_token_id,
            start=shape.decoder_start_token_id,
            ends=shape.all_end_token_ids,
        )


@dataclass(frozen=True)
class Hypothesis:
    """One generated sequence.

    Attributes:
        token_ids: Without the start token and the end token.
        score: Sum of the tokens' natural log-probabilities, the end token's included, divided by
            their number ** length_penalty.
        finish_reason: "eos" (an end token), "length" or "stop" (ended by the callback).
        steps: Number of decoder steps if tokens were drafted (prompt_lookup_num_tokens), else None.
        end_token: The token that ended the answer, if one did.
    """

    token_ids: tuple[int, ...]
    score: float
    finish_reason: str
    steps: int | None = None
    end_token: int | None = None

    @property
    def all_token_ids(self) -> tuple[int, ...]:
        """The tokens with the end token, whose text belongs to the answer if it has one."""
        return self.token_ids if self.end_token is None else (*self.token_ids, self.end_token)


class Engine(abc.ABC):
    """A loaded artifact of one format.

    Attributes:
        format: Name of the artifact format.
        thread_safe: Whether several threads may call the engine; if not, `Model` serializes calls.
        concurrent: Whether calls of several threads run in parallel, each with `threads` threads.
        supports_beams: Whether the engine has beam search.
        supports_constraints: Whether the engine limits which tokens may follow.
        settings: Names that the manifest's `runtime` section may set beside threads, with the
            allowed values; the first is the default.
    """

    format: ClassVar[str]
    thread_safe: ClassVar[bool] = False
    concurrent: ClassVar[bool] = False
    supports_beams: ClassVar[bool] = True
    supports_constraints: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @abc.abstractmethod
    def __init__(self, artifact: Artifact, *, threads: int | None = None) -> None:
        """Load the model files.

        Args:
            artifact: The opened artifact.
            threads: Number of threads; None takes the tuned number in the manifest, or one.
        """

    @abc.abstractmethod
    def generate(
        self,
        input_ids: Sequence[TokenIds],
        options: GenerationOptions,
        on_token: TokenCallback | None = None,
        matchers: Sequence[Matcher] | None = None,
    ) -> list[list[Hypothesis]]:
        """Generate for a batch.

        Args:
            input_ids: Unpadded rows of source ids, eos included.
            options: Generation options.
            on_token: See `TokenCallback`. Needs greedy search or sampling.
            matchers: The state of each row's constraint at its start, if the options have one.

        Returns:
            For each row `options.num_return_sequences` hypotheses, best first.

        Raises:
            UnsupportedError: The engine can't do what the options ask for.
        """

    @abc.abstractmethod
    def score(
        self, input_ids: Sequence[TokenIds], target_ids: Sequence[TokenIds]
    ) -> list[np.ndarray]:
        """Natural log-probability of every target token, given the source and earlier tokens.

        Args:
            input_ids: Unpadded rows of source ids, eos included.
            target_ids: Unpadded rows without the start token; eos counts like any other token.

        Returns:
            One float32 array of len(target) per row.
        """

    @classmethod
    def tunable(cls, threads: Sequence[int]) -> list[dict[str, Any]]:
        """Engine settings that `edge tune` measures, for the thread counts to try.

        Each is a `runtime` section of the manifest. If two are equally fast, the earlier one wins.
        """
        return [{"threads": number} for number in threads]

    @property
    @abc.abstractmethod
    def threads(self) -> int:
        """Number of threads that the engine computes with."""

    @property
    def parallel_calls(self) -> int:
        """Calls that keep all cores busy: cores ÷ threads; 1 unless the engine is concurrent."""
        return max(1, usable_cores() // self.threads) if self.concurrent else 1

    @abc.abstractmethod
    def close(self) -> None:
        """Free the model. Closing twice is harmless."""

    @classmethod
    def drafts_with(cls, quantization: str) -> bool:
        """Whether artifacts of this quantization draft tokens from the input."""
        return False

    def prepare(self, options: GenerationOptions) -> None:  # noqa: B027 - nothing to open
        """Open what answers with these options need, so that the first one does not wait for it.

        Raises:
            ArtifactError: It can't be loaded.
        """

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Check settings given to `load`.

        Raises:
            UsageError: An unknown name or an invalid value.
        """
        for name, value in settings.items():
            if name not in cls.settings:
                raise UsageError(unknown_name(f"{cls.format} setting", name, (*cls.settings,)))
            if not _is_one_of(value, cls.settings[name]):
                raise UsageError(f"{name} must be {_join_or(cls.settings[name])}, not {value!r}")

    def check_options(self, options: GenerationOptions) -> None:
        """Check that this engine supports the options.

        Raises:
            UnsupportedError: Beam search or a constraint, if the engine has none; the message names
                the formats that do.
        """
        if options.num_beams > 1 and not self.supports_beams:
            raise UnsupportedError(
                f"{self.format} artifacts do not support beam search; use num_beams 1, or an"
                " artifact of format onnx, ctranslate2 or torchscript"
            )
        if options.constraint is not None and not self.supports_constraints:
            raise UnsupportedError(
                f"{self.format} artifacts do not support {options.constraint[0]}; use an artifact"
                " of format onnx, gguf or torchscript"
            )


def choose_threads(artifact: Artifact, threads: int | None) -> int:
    """The given number of threads, else the tuned one, else 1.

    One thread is the default: for one short input it is close to the best, while too many threads
    can double the time on a shared machine. The tuned number is limited to the cores of this
    machine.

    Raises:
        ArtifactError: The manifest's number is invalid.
    """
    if threads is not None:
        return threads
    tuned = artifact.manifest.runtime.get("threads", 1)
    if type(tuned) is not int or tuned < 1:
        raise _invalid_setting(artifact, "threads", "a whole number of at least 1", tuned)
    return min(tuned, usable_cores())


def choose_setting(artifact: Artifact, name: str, values: Sequence[Any]) -> Any:
    """A setting of the manifest's `runtime` section: one of `values`, by default the first.

    Raises:
        ArtifactError: The manifest has another value.
    """
    chosen = artifact.manifest.runtime.get(name, values[0])
    if not _is_one_of(chosen, values):
        raise _invalid_setting(artifact, name, _join_or(values), chosen)
    return chosen


def _is_one_of(value: object, values: Sequence[Any]) -> bool:
    """Like `value in values`, but 1 is not True."""
    return any(type(value) is type(known) and value == known for known in values)


def _join_or(values: Sequence[Any]) -> str:
    return " or ".join(str(value) for value in values)


def _invalid_setting(artifact: Artifact, name: str, wanted: str, found: object) -> ArtifactError:
    return ArtifactError(
        f"{artifact.folder}: runtime.{name} in edge.json must be {wanted}, not {found!r:.40};"
        " run edge tune to reset it"
    )


def pad_batch(
    rows: Sequence[TokenIds], pad: int, *, dtype: type = np.int64
) -> tuple[np.ndarray, np.ndarray]:
    """Right-pad rows to the same length: ids and attention mask (0 or 1), both [batch, length]."""
    length = max(len(row) for row in rows)
    ids: np.ndarray = np.full((len(rows), length), pad, dtype=dtype)
    mask: np.ndarray = np.zeros((len(rows), length), dtype=dtype)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask
