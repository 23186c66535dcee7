"""How much an artifact differs from its source model, and how much it may."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from edge.runtime.errors import ParityError


@dataclass(frozen=True)
class Tolerance:
    """How much an artifact may differ from its source model; docs/parity.md gives the reasons.

    Attributes:
        greedy: require identical greedy tokens on every parity input. An answer may differ from
            the source's only at a tie: both tokens have the same log-probability to within the
            errors of both sides.
        max_error: the limit of the largest absolute log-probability error, in nats per token on
            the source's greedy answers; None for no limit.
        mean_error: the limit of the mean absolute log-probability error, in the same unit.
    """

    greedy: bool
    max_error: float | None
    mean_error: float

    @property
    def tie(self) -> float:
        """Two tokens closer than this, in nats, count as equally good."""
        return 2 * (self.max_error or self.mean_error)

    def allows_more_than(self, other: Tolerance) -> bool:
        """Whether some difference is within this tolerance, but not within the other."""
        if other.greedy and not self.greedy:
            return True
        if other.max_error is not None and (
            self.max_error is None or self.max_error > other.max_error
        ):
            return True
        return self.mean_error > other.mean_error

    def __str__(self) -> str:
        limits = ["identical greedy answers"] if self.greedy else []
        if self.max_error is not None:
            limits.append(f"max error {self.max_error:g}")
        return ", ".join([*limits, f"mean error {self.mean_error:g}"])

    def with_limits(self, max_error: float | None, mean_error: float | None) -> Tolerance:
        """This tolerance with other limits; None keeps its own."""
        changed = self
        if max_error is not None:
            changed = dataclasses.replace(changed, max_error=max_error, greedy=False)
        if mean_error is not None:
            changed = dataclasses.replace(changed, mean_error=mean_error)
        return changed


# float32 arithmetic in another order: differences are rounding only.
EXACT = Tolerance(greedy=True, max_error=1e-3, mean_error=1e-3)
HALF = Tolerance(greedy=False, max_error=None, mean_error=0.05)
EIGHT_BIT = Tolerance(greedy=False, max_error=None, mean_error=0.2)
FOUR_BIT = Tolerance(greedy=False, max_error=None, mean_error=0.5)


@dataclass(frozen=True)
class Parity:
    """The result of a parity check; log-probabilities are in nats.

    Attributes:
        inputs: the number of inputs.
        tokens: the number of tokens in the source's greedy answers, over which errors are taken.
        greedy_identical: how many greedy answers are identical to the source's.
        largest_gap: over the other answers, the largest difference between the source's
            log-probabilities of the two tokens where the answers first differ; 0 if all are
            identical.
        lookup_identical: how many answers are the same with and without prompt-lookup drafts;
            None if the engine does not support them.
        lookup_gap: over the other answers, the largest difference between the artifact's
            log-probabilities where they first differ; None as above.
        max_error, mean_error: absolute log-probability errors per token.
    """

    inputs: int
    tokens: int
    greedy_identical: int
    largest_gap: float
    lookup_identical: int | None
    lookup_gap: float | None
    max_error: float
    mean_error: float

    def as_manifest(self, tolerance: Tolerance) -> dict[str, Any]:
        """The manifest's `parity` section: these values, rounded, and the tolerance."""
        values = dataclasses.asdict(self)
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        return {**rounded, "tolerance": dataclasses.asdict(tolerance)}


def check_tolerance(
    parity: Parity,
    tolerance: Tolerance,
    what: str,
    *,
    quantized: bool = True,
    conditioned: bool = False,
) -> None:
    """Reject an artifact outside of the tolerance.

    Args:
        parity: what was measured.
        tolerance: the limits.
        what: the artifact's name, for the message.
        quantized: whether a higher precision may help.
        conditioned: whether the weights were conditioned, so that those of the source may help.

    Raises:
        ParityError: lists each limit that is exceeded, and by how much.
    """
    problems = []
    tie = tolerance.tie
    if tolerance.greedy and not parity.largest_gap <= tie:
        problems.append(
            f"only {parity.greedy_identical} of {parity.inputs} greedy answers are identical"
        )
    if parity.lookup_identical is not None and not (parity.lookup_gap or 0.0) <= tie:
        problems.append(
            f"prompt-lookup drafts change {parity.inputs - parity.lookup_identical}"
            f" of {parity.inputs} answers"
        )
    if tolerance.max_error is not None and not parity.max_error <= tolerance.max_error:
        problems.append(
            f"the largest log-probability error is {parity.max_error:.4g}"
            f" (limit {tolerance.max_error:g})"
        )
    if not parity.mean_error <= tolerance.mean_error:
        problems.append(
            f"the mean log-probability error is {parity.mean_error:.4g}"
            f" (limit {tolerance.mean_error:g})"
        )
    if problems:
        advice = ["a higher-precision --quantize"] if quantized else []
        advice += ["--no-condition"] if conditioned else []
        export = f"Export with {' or '.join(advice)}, or raise" if advice else "Raise"
        raise ParityError(
            f"{what} differs from its source by more than the tolerance: {'; '.join(problems)}."
            f" {export} --max-error and --mean-error"
        )
