"""The search: successive halving, from a few answers of many candidates to all rows for a few.

After Jamieson and Talwalkar, "Non-stochastic Best Arm Identification" (2016): every round gives the
better half of the candidates more rows. Here an artifact must be exported before it is timed, and
its accuracy hardly depends on how it is run. So the rounds go from the outside in:

1. formats, by their 8-bit artifact run plainly and with drafts: one that takes twice another's time
   waits;
2. the other quantizations of those that stay, then shortlists of the best, run alike; 16 bits
   wait, as they are for size, and float32 where it does not pay in the fastest format;
3. of the better half, ways to run each format: threads, engine settings, drafts;
4. the best way of each artifact on more rows, where accuracy counts, too;
5. the finalists on all rows, taking turns.

Only what all rows show to be within the accuracy budget is accepted. Where no finalist is, the
search goes back to what waited, until there is something or nothing is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edge.bench.compiler.accuracy_budget import MIN_ANSWERS, AccuracyBudget
from edge.bench.compiler.space import ArtifactSpec, Candidate, Space
from edge.bench.compiler.trials import Timed, TrialRunner
from edge.bench.engines.cache import bits_of
from edge.bench.timing.verdict import MEETS, judge

FIRST, SECOND, THIRD = 16, 64, 256  # rows of the rounds
_WAYS = 2  # of running the artifacts of a format, that each of them tries
_FINALISTS = 4
_NEAR_FINAL = 1.15  # what is slower than this times the fastest finalist waits
_FORMAT_FACTOR = 2.0  # so does a format whose 8-bit artifact is: 4 bits don't make up for that
_NEAR = 1.25  # at first sight, an artifact this near to the fastest still goes on
_SAME = 1.05  # what is within this of the fastest is as fast, for all we know


class TimeUpError(Exception):
    """The time budget is spent."""


@dataclass
class Trial:
    """A candidate, the most that was measured of it, and what became of it.

    `score` and `drop` are of all rows, None where not all were answered; `lost` and `won` count
    the rows that only the source answers exactly, and those that only the candidate does.
    `sample_drop` is of the rows that were answered.
    """

    candidate: Candidate
    timed: Timed
    outcome: str = ""
    score: float | None = None
    drop: float | None = None
    lost: int | None = None
    won: int | None = None
    sample_drop: float | None = None
    accepted: bool = False
    meets: bool = False


@dataclass
class Search:
    """One search; `tried` collects what was measured, by candidate."""

    lab: TrialRunner
    space: Space
    judge: AccuracyBudget
    target_ms: float
    budget: float | None = None  # seconds
    tried: dict[Candidate, Trial] = field(default_factory=dict)
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

    def ranking(self) -> list[Trial]:
        """What is accepted, the one to take first.

        What meets the target comes first; of those about as fast as the fastest the simplest, then
        the most accurate.
        """
        accepted = [one for one in self.tried.values() if one.accepted]
        if not accepted:
            return []
        meeting = any(one.meets for one in accepted)
        fastest = min(one.timed.p50 for one in accepted if one.meets or not meeting)

        def key(one: Trial) -> tuple[object, ...]:
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

    def _waves(self) -> Iterator[list[ArtifactSpec]]:
        """Artifacts to look closer at, the fastest first; the next wave is for where none of these
        is accepted."""
        space = self.space
        firsts = self._glance([space.first(name) for name in space.formats])
        limit = _FORMAT_FACTOR * min(firsts.values(), default=0.0)
        slow = [v.format for v, p50 in firsts.items() if p50 > limit]
        known = sorted(firsts, key=lambda v: firsts[v])  # what failed says nothing of its format
        fast = [v.format for v in known] + [
            n for n in space.formats if space.first(n) not in firsts
        ]
        fast = [name for name in fast if name not in slow]
        seen: dict[ArtifactSpec, float] = {}
        later: list[ArtifactSpec] = []
        wide = True
        for name in fast:
            variants = space.variants(name)
            now = [v for v in variants if v in firsts or bits_of(v.quantization) < 16]
            now += [v for v in variants if wide and bits_of(v.quantization) >= 32]
            found = self._glance(list(dict.fromkeys(now)))
            seen |= found
            later += [v for v in variants if v not in now]
            # Where the fastest format gains nothing by float32, the others won't: small models do.
            wide = wide and self._wide_pays(found)
        best = better_half(seen)
        listed = self._glance([one for v in best if (one := space.listed(v))])
        first = better_half(seen | listed)
        yield first
        unlisted = [v for v in (*seen, *later) if v not in best]
        listed |= self._glance([one for v in unlisted if (one := space.listed(v))])
        others = seen | listed | self._glance(later)
        yield sorted((v for v in others if v not in first), key=lambda v: others[v])
        seen = self._glance([v for name in slow for v in space.variants(name)])
        listed = self._glance([one for v in seen if (one := space.listed(v))])
        others = seen | listed
        yield sorted(others, key=lambda v: others[v])

    @staticmethod
    def _wide_pays(found: Mapping[ArtifactSpec, float]) -> bool:
        """Whether float32 is as fast as fewer bits, or there is nothing to tell by."""
        wide = [p50 for v, p50 in found.items() if bits_of(v.quantization) >= 32]
        narrow = [p50 for v, p50 in found.items() if bits_of(v.quantization) < 16]
        return not wide or not narrow or min(wide) <= min(narrow)

    def _glance(self, variants: Sequence[ArtifactSpec]) -> dict[ArtifactSpec, float]:
        """Export artifacts and run them plainly, and with drafts: the better median, in ms."""
        candidates = []
        for variant in variants:
            self._check_time()
            if self.lab.make(variant):
                ways = self.space.candidates(variant)
                candidates += [
                    way
                    for way in ways
                    if replace(way, draft_tokens=ways[0].draft_tokens) == ways[0]
                ]
        found: dict[ArtifactSpec, float] = {}
        for one in self._ranked(candidates, FIRST):
            found.setdefault(one.variant, self._p50(one))
        return found

    def _decide(self, wave: Sequence[ArtifactSpec]) -> bool:
        """Find the best way to run each artifact, then measure the best in full; True if one is
        accepted."""
        more = SECOND if self._has_more(SECOND) else FIRST
        ways: dict[str, list[Candidate]] = {}
        best = []
        for variant in wave:
            known = ways.get(variant.format)
            if not known:
                # What is a good way to run one artifact of a format is one for all.
                found = self._ranked(self.space.candidates(variant), FIRST)
                known = self._ranked(found[: -(-len(found) // 2)], more)[:_WAYS]
                ways[variant.format] = known
            best += self._ranked([replace(way, variant=variant) for way in known], more)[:1]
        best.sort(key=self._p50)
        while best:
            chosen, best = best[: 2 * _FINALISTS], best[2 * _FINALISTS :]
            if self._has_more(THIRD):
                chosen = self._ranked(chosen, THIRD)
            while chosen:
                self._check_time()
                near = _NEAR_FINAL * self._p50(chosen[0])
                finalists = [c for c in chosen[:_FINALISTS] if self._p50(c) <= near]
                self._measure_in_full(finalists)
                if self.ranking():
                    return True
                chosen = [c for c in chosen if c not in finalists]
        return False

    def _decide_late(self) -> None:
        """The budget is spent: measure the best so far in full, one by one, until one will do."""
        waiting = [one for one in self.tried.values() if one.score is None and not one.outcome]
        for one in sorted(waiting, key=lambda one: one.timed.p50):
            if self.ranking():
                return
            if not self._is_out(one.candidate.variant):
                self._measure_in_full([one.candidate])

    def _is_out(self, variant: ArtifactSpec) -> bool:
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
            for candidate, timed in self.lab.time_interleaved(group, count).items():
                self.tried[candidate] = tried = Trial(candidate, timed)
                places = self.lab.places(count)[: len(self.lab.rows)]
                answers = timed.answers[: len(places)]
                tried.sample_drop = self.judge.sample_drop(places, answers)
                if self.judge.hopeless(places, answers):
                    tried.outcome = f"out of the accuracy budget after {count} answers"
                else:
                    found.append(candidate)
        return sorted(found, key=self._p50)

    def _p50(self, candidate: Candidate) -> float:
        return self.tried[candidate].timed.p50

    def _has_more(self, count: int) -> bool:
        return len(self.lab.rows) > count

    def _measure_in_full(self, candidates: Sequence[Candidate]) -> None:
        for candidate, timed in self.lab.time_interleaved(candidates, self.full).items():
            answers = timed.answers[: len(self.lab.rows)]
            score = self.judge.score(answers)
            lost, won = self.judge.changes(answers)
            self.tried[candidate] = Trial(
                candidate,
                timed,
                score=score,
                drop=self.judge.source_score - score,
                lost=lost,
                won=won,
                accepted=self.judge.accepts(score),
                meets=judge(timed.ms, self.target_ms).word == MEETS,
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


def better_half(medians: Mapping[ArtifactSpec, float]) -> list[ArtifactSpec]:
    """The faster half, at least three, and what is nearly as fast; the fastest first."""
    order = sorted(medians, key=lambda one: medians[one])
    if not order:
        return []
    last = medians[order[min(len(order), max(3, -(-len(order) // 2))) - 1]]
    return [one for one in order if medians[one] <= max(last, _NEAR * medians[order[0]])]
