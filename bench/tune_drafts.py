"""Whether an artifact should draft from its inputs, measured on rows."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bench.speculation.gain import DRAFT_TOKENS, gain_on_rows
from edge.bench.speculation.results import Gain
from edge.runtime.model import load
from edge.runtime.rows import Row

_MIN_SPEEDUP = 1.05  # from which drafts are an artifact's default


@dataclass(frozen=True)
class DraftTuning:
    """The longest draft, 0 if drafts don't pay, and what was measured.

    Attributes:
        longest: tokens of a draft.
        break_even: tokens per decoder step from which on drafts save time.
        gain: the comparison with plain greedy search.
        created: ISO 8601, UTC.
    """

    longest: int
    break_even: float
    gain: Gain
    created: str

    def as_manifest(self) -> dict[str, Any]:
        """The `drafts` part of the manifest's `runtime` section."""
        return {
            "longest": self.longest,
            "break_even": round(self.break_even, 3),
            "date": self.created,
            "runs": self.gain.runs,
            "tokens_per_step": round(self.gain.tokens_per_step, 3),
            "speedup": round(self.gain.speedup, 3),
        }


def measure_drafts(
    folder: str | Path,
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    runs: int,
    *,
    trust_code: bool = False,
) -> DraftTuning | None:
    """Compare plain greedy search with drafts; None if the engine has none.

    Args:
        folder: the artifact.
        rows: inputs as the artifact will get them.
        settings: threads and the engine's other settings.
        runs: timed pairs.
        trust_code: see `edge.runtime.load`.
    """
    with load(folder, **load_arguments(settings), trust_code=trust_code) as model:
        if not model.drafts_from_input:
            return None
        gain = gain_on_rows(model, rows, runs)
    # A drafted step takes this many times as long as a plain one, if all time went into steps. The
    # encoder's part makes it a little too high, so that doubtful drafts are left out.
    break_even = max(1.0, gain.tokens_per_step / gain.speedup)
    longest = DRAFT_TOKENS if gain.speedup >= _MIN_SPEEDUP else 0
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return DraftTuning(longest, break_even, gain, created)


def load_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `load` for settings to measure, without the artifact's own."""
    others = {name: value for name, value in settings.items() if name != "threads"}
    return {"threads": settings["threads"], "settings": {**others, "drafts": {}}}
