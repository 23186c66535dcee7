"""The boundary to the engines' libraries: errors as sentences, and checks of outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edge.runtime.engines.base import Hypothesis, Vocabulary
from edge.runtime.errors import ArtifactError, EdgeError, first_line
from edge.runtime.options import GenerationOptions


@contextlib.contextmanager
def engine_errors(
    path: Path, library: str, *, loading: bool = False, also: Callable[[], None] | None = None
) -> Iterator[None]:
    """Convert what a library raises into one sentence with the file's name.

    Args:
        path: The file that the library reads or runs.
        library: Its name and version.
        loading: Whether the file is being loaded, not run.
        also: Called first with any error; may raise another one.

    Raises:
        ArtifactError: The library can't load the file.
        EdgeError: The library failed to run it.
    """
    try:
        yield
    except EdgeError:
        raise
    except Exception as error:  # the libraries' exceptions have no common base class
        if also is not None:
            also()
        if isinstance(error, MemoryError):
            raise EdgeError(f"{path}: not enough memory for {library}") from error
        reason = first_line(error)
        if loading:
            raise ArtifactError(
                f"{path}: {library} can't load it ({reason}); copy or export it again"
            ) from error
        raise EdgeError(f"{path}: {library} failed to run it ({reason})") from error


def check_logits(logits: np.ndarray, shape: tuple[int, ...], path: Path) -> None:
    """Check logits that a model file computed.

    Raises:
        ArtifactError: They are not float32 of this shape.
        EdgeError: They hold values that are not numbers.
    """
    if logits.shape != shape or logits.dtype != np.float32:
        raise ArtifactError(
            f"{path}: it computes logits of {logits.dtype}{list(logits.shape)}, expected"
            f" float32{list(shape)}; export it again"
        )
    if np.isnan(logits).any():
        raise EdgeError(f"{path}: the model computed values that are not numbers (NaN)")


def greedy_hypotheses(
    outputs: Sequence[np.ndarray],
    options: GenerationOptions,
    vocabulary: Vocabulary,
    *,
    rows: int,
    path: Path,
) -> list[list[Hypothesis]]:
    """Hypotheses from the outputs of a greedy loop inside a model file.

    Args:
        outputs: Ids [rows, steps]; numbers of tokens [rows], eos included; sums of
            log-probabilities [rows]; and whether each row ended with eos [rows].
        options: Generation options; the length penalty divides the score.
        vocabulary: Ids that may be emitted.
        rows: Number of rows.
        path: The model file, for error messages.

    Returns:
        One hypothesis per row.

    Raises:
        ArtifactError: The outputs are malformed, or hold an id outside the vocabulary.
    """
    fault = _fault_in_outputs(outputs, options.max_new_tokens, vocabulary.size, rows)
    if fault:
        raise ArtifactError(f"{path}: it computes {fault}; export it again")
    tokens, lengths, log_probs, finished = outputs
    groups = []
    for row, length, total, ended in zip(tokens, lengths, log_probs, finished, strict=True):
        *ids, last = row[:length].tolist()
        score = float(total) / int(length) ** options.length_penalty
        if ended:
            groups.append([Hypothesis(tuple(ids), score, "eos", end_token=last)])
        else:
            groups.append([Hypothesis((*ids, last), score, "length")])
    return groups


def _fault_in_outputs(
    outputs: Sequence[np.ndarray], max_steps: int, vocab_size: int, rows: int
) -> str | None:
    """What is wrong with the outputs of a greedy loop, or None."""
    tokens, lengths, log_probs, finished = outputs
    if tokens.ndim != 2 or tokens.shape[0] != rows or tokens.dtype.kind not in "iu":
        return f"tokens of {tokens.dtype}{list(tokens.shape)} for {rows} rows"
    for name, array, kinds in (
        ("lengths", lengths, "iu"),
        ("log-probabilities", log_probs, "f"),
        ("ends", finished, "bi"),
    ):
        if array.shape != (rows,) or array.dtype.kind not in kinds:
            return f"{name} of {array.dtype}{list(array.shape)} for {rows} rows"
    steps = tokens.shape[1]
    if steps > max_steps or lengths.min() < 1 or lengths.max() > steps:
        return f"lengths from {lengths.min()} to {lengths.max()} in {steps} of {max_steps} steps"
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        return f"token ids from {tokens.min()} to {tokens.max()} of a vocabulary of {vocab_size}"
    if np.isnan(log_probs).any():
        return "log-probabilities that are not numbers"
    return None
