"""The search: successive halving, from a few answers of many candidates to all rows for a few.

After Jamieson and Talwalkar, "Non-stochastic Best Arm Identification" (2016): every round gives the
better half of the candidates more rows. Here an artifact must be exported before it is timed, and
its accuracy hardly depends on how it is run. So the rounds go from the outside in:

1. formats, by their 8-bit artifact run plainly: one that takes many times the fastest's time waits;
2. the other quantisations of those that stay, then shortlists of the best, run plainly;
3. ways to run each of the better half: threads, engine settings, drafts;
4. the best way of each artifact on more rows, where accuracy counts, too;
5. the finalists on all rows, taking turns.

Only what all rows show to be within the accuracy budget is accepted. Where no finalist is, the
search goes back to what waited, until there is something or nothing is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edge.bench.compile.judge import MIN_ANSWERS, Judge, is_shown
from edge.bench.compile.lab import Lab, Timed
from edge.bench.compile.space import Candidate, Space, Variant

FIRST, SECOND, THIRD = 16, 64, 256  # rows of the rounds
_FINALISTS = 4
_FORMAT_FACTOR = 2.5  # a format this many times slower than the fastest waits
_NEAR = 1.25  # run plainly, an artifact this near to the best half still goes on
_SAME = 1.05  # what is within this of the fastest is as fast, for all we know


class TimeUpError(Exception):
    """The time budget is spent."""


@dataclass
class Tried:
    """A candidate, the most that was measured of it, and what became of it.

    `score` and `drop` are of all rows, None where not all were answered; `lost` and `won` count
    the rows that only the source answers exactly, and those that only the candidate does.
    """

    candidate: Candidate
    timed: Timed
    outcome: str = ""
    score: float | None = None
    drop: float | None = None
    lost: int | None = None
    won: int | None = None
    accepted: bool = False
    meets: bool = False


@dataclass
class Search:
    """One search; `tried` collects what was measured, by candidate."""

    lab: Lab
    space: Space
    judge: Judge
    target_ms: float
    budget: float | None = None  # seconds
    tried: dict[Candidate, Tried] = field(default_factory=dict)
    time_up: bool = False
    started: float = field(default_factory=time.monotonic)  # when the call began

    @property
    def full(self) -> int:
        """Answers of a full measurement: to all rows, and as many as a verdict needs."""
        return max(len(self.lab.rows), MIN_ANSWERS)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def run(self) -> None:
        """Search by halving."""
        try:
            for wave in self._waves():
                if self._decide(wave):
                    return
        except TimeUpError:
            self.time_up = True
            self._decide_late()

    def exhaust(self) -> None:
        """Measure everything in full, one candidate after the other."""
        try:
            for candidate in self.space.everything():
                self._check_time()
                if self.lab.make(candidate.variant):
                    self._measure_in_full([candidate])
        except TimeUpError:
            self.time_up = True

    def ranking(self) -> list[Tried]:
        """What is accepted, the one to take first.

        What meets the target comes first; of those about as fast as the fastest the simplest, then
        the most accurate.
        """
        accepted = [one for one in self.tried.values() if one.accepted]
        if not accepted:
            return []
        meeting = any(one.meets for one in accepted)
        fastest = min(one.timed.p50 for one in accepted if one.meets or not meeting)

        def key(one: Tried) -> tuple[object, ...]:
            slower = max(one.timed.p50 / fastest, _SAME)  # as fast, for all we know
            return (
                not one.meets,
                slower,
                one.candidate.simplicity,
                one.drop,
                one.timed.p50,
                one.candidate.name,
            )

        return sorted(accepted, key=key)

    # -- rounds ----------------------------------------------------------------------------------

    def _waves(self) -> Iterator[list[Variant]]:
        """Artifacts to look closer at; the next wave is for where none of these is accepted."""
        space = self.space
        firsts = self._plain([space.first(name) for name in space.formats])
        fastest = min(firsts.values(), default=0.0)
        slow = [v.format for v, p50 in firsts.items() if p50 > _FORMAT_FACTOR * fastest]
        fast = [name for name in space.formats if name not in slow]
        plain = self._plain([v for name in fast for v in space.variants(name)])
        best = better_half(plain)
        listed = self._plain([one for v in best if (one := space.listed(v))])
        first = better_half(plain | listed)
        yield first
        rest = self._plain([one for v in plain if v not in best and (one := space.listed(v))])
        others = plain | listed | rest
        yield sorted((v for v in others if v not in first), key=lambda v: others[v])
        plain = self._plain([v for name in slow for v in space.variants(name)])
        yield sorted(plain, key=lambda v: plain[v])

    def _plain(self, variants: Sequence[Variant]) -> dict[Variant, float]:
        """Export artifacts and run them plainly: the median of their first answers, in ms."""
        candidates = []
        for variant in variants:
            self._check_time()
            if self.lab.make(variant):
                candidates.append(self.space.candidates(variant)[0])
        return {one.variant: self._p50(one) for one in self._ranked(candidates, FIRST)}

    def _decide(self, wave: Sequence[Variant]) -> bool:
        """Find the best way to run each artifact, then measure the best in full; True if one is
        accepted."""
        ways: dict[Variant, list[Candidate]] = {}
        for variant in wave:
            found = self._ranked(self.space.candidates(variant), FIRST)
            ways[variant] = found[: -(-len(found) // 2)]
        best = [
            candidate
            for found in ways.values()
            for candidate in self._ranked(found, SECOND if self._has_more(SECOND) else FIRST)[:1]
        ]
        best.sort(key=self._p50)
        while best:
            chosen, best = best[: 2 * _FINALISTS], best[2 * _FINALISTS :]
            if self._has_more(THIRD):
                chosen = self._ranked(chosen, THIRD)
            while chosen:
                self._check_time()
                self._measure_in_full(chosen[:_FINALISTS])
                if self.ranking():
                    return True
                chosen = chosen[_FINALISTS:]
        return False

    def _decide_late(self) -> None:
        """The budget is spent: measure the best so far in full, one by one, until one will do."""
        waiting = [one for one in self.tried.values() if one.score is None and not one.outcome]
        for one in sorted(waiting, key=lambda one: one.timed.p50):
            if self.ranking():
                return
            if not self._is_out(one.candidate.variant):
                self._measure_in_full([one.candidate])

    def _is_out(self, variant: Variant) -> bool:
        """Whether all rows showed that an artifact is out of the accuracy budget."""
        return any(
            one.score is not None and not one.accepted
            for one in self.tried.values()
            if one.candidate.variant == variant
        )

    def _ranked(self, candidates: Sequence[Candidate], count: int) -> list[Candidate]:
        """The candidates by their median on so many rows, without those that fail or are clearly
        out of the accuracy budget."""
        found: list[Candidate] = []
        for group in self.lab.groups(candidates):
            self._check_time()
            for candidate, timed in self.lab.contest(group, count).items():
                self.tried[candidate] = tried = Tried(candidate, timed)
                places = self.lab.places(count)[: len(self.lab.rows)]
                if self.judge.hopeless(places, timed.answers[: len(places)]):
                    tried.outcome = f"out of the accuracy budget after {count} answers"
                else:
                    found.append(candidate)
        return sorted(found, key=self._p50)

    def _p50(self, candidate: Candidate) -> float:
        return self.tried[candidate].timed.p50

    def _has_more(self, count: int) -> bool:
        return len(self.lab.rows) > count

    def _measure_in_full(self, candidates: Sequence[Candidate]) -> None:
        for candidate, timed in self.lab.contest(candidates, self.full).items():
            answers = timed.answers[: len(self.lab.rows)]
            score = self.judge.score(answers)
            lost, won = self.judge.changes(answers)
            self.tried[candidate] = Tried(
                candidate,
                timed,
                score=score,
                drop=self.judge.source_score - score,
                lost=lost,
                won=won,
                accepted=self.judge.accepts(score),
                meets=is_shown(timed.ms, self.target_ms),
            )

    def _check_time(self) -> None:
        """Stop while there is time left to measure the fastest in full.

        Raises:
            TimeUpError: there is none.
        """
        if self.budget is None:
            return
        fastest = min((one.timed.p50 for one in self.tried.values()), default=0.0)
        if self.seconds + 1.3 * self.full * fastest / 1000 >= self.budget:
            raise TimeUpError


def better_half(medians: Mapping[Variant, float]) -> list[Variant]:
    """The faster half, at least three, and what is nearly as fast; the fastest first."""
    order = sorted(medians, key=lambda one: medians[one])
    if not order:
        return []
    last = medians[order[min(len(order), max(3, -(-len(order) // 2))) - 1]]
    return [one for one in order if medians[one] <= max(last, _NEAR * medians[order[0]])]
