"""Successive halving: from a few answers of many candidates to all rows for a few.

After Jamieson and Talwalkar, "Non-stochastic Best Arm Identification" (2016): every round gives the
better half of the candidates more rows. An artifact must be exported before it is timed, and its
accuracy hardly depends on how it is run, so the rounds go from the outside in:

1. formats, by their 8-bit artifact, with and without drafts: one that takes twice as long as the
   fastest is deferred;
2. the other quantizations of the remaining formats, then shortlists of the best; 16 bits are
   deferred, as they only save size, and so is float32 if it does not pay in the fastest format;
3. for the better half, ways to run each format: threads, engine settings, drafts;
4. the best way to run each artifact, on more rows; inaccurate artifacts are rejected;
5. the finalists on all rows, in turns.

A candidate is accepted only if it is within the accuracy budget on all rows. If no finalist is, the
search goes on with the deferred candidates until one is accepted or none is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edge.bench.compiler.accuracy_budget import MIN_ANSWERS, AccuracyBudget
from edge.bench.compiler.space import ArtifactSpec, Candidate, Space
from edge.bench.compiler.trial import Trial
from edge.bench.compiler.trials import TrialRunner
from edge.bench.engines.cache import bits_of
from edge.bench.timing.verdict import MEETS, judge

FIRST, SECOND, THIRD = 16, 64, 256  # rows of the rounds
_WAYS = 2  # to run the artifacts of a format that are tried for each of them
_FINALISTS = 4
# Ratios to the fastest:
_NEAR_FINAL = 1.15  # a slower finalist is deferred
_FORMAT_FACTOR = 2.0  # so is a format, by its 8-bit artifact: 4 bits don't make up for that
_NEAR = 1.25  # an artifact this close stays in the search after the first round
_SAME = 1.05  # candidates this close count as equally fast


class TimeUpError(Exception):
    """The time limit is reached."""


@dataclass
class Search:
    """One search.

    Attributes:
        runner: exports and times candidates.
        space: what may be tried.
        accuracy_budget: what is accurate enough.
        target_ms: the target for p95, in milliseconds.
        time_limit: seconds, None for no limit.
        trials: what was measured, by candidate.
        time_up: whether the time limit ended the search.
        started: when the call began, of `time.monotonic`.
    """

    runner: TrialRunner
    space: Space
    accuracy_budget: AccuracyBudget
    target_ms: float
    time_limit: float | None = None
    trials: dict[Candidate, Trial] = field(default_factory=dict)
    time_up: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def full_count(self) -> int:
        """Answers of a full measurement: all rows, and as many as a verdict needs."""
        return max(len(self.runner.rows), MIN_ANSWERS)

    @property
    def seconds(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self.started

    def run(self) -> None:
        """Search by successive halving."""
        try:
            for wave in self._waves():
                if self._measure_wave(wave):
                    return
        except TimeUpError:
            self.time_up = True
            self._measure_best_so_far()

    def run_exhaustive(self) -> None:
        """Measure every candidate on all rows, one after the other."""
        try:
            for candidate in self.space.all_candidates():
                self._check_time()
                if self.runner.export(candidate.spec):
                    self._measure_in_full([candidate])
        except TimeUpError:
            self.time_up = True

    def ranking(self) -> list[Trial]:
        """The accepted candidates, the best first.

        Those that meet the target come first; among those about as fast as the fastest, the
        simplest, then the most accurate.
        """
        accepted = [one for one in self.trials.values() if one.accepted]
        if not accepted:
            return []
        meeting = any(one.meets for one in accepted)
        fastest = min(one.timed.p50 for one in accepted if one.meets or not meeting)

        def key(one: Trial) -> tuple[object, ...]:
            slower = max(one.timed.p50 / fastest, _SAME)
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
        """Artifacts to measure closer, the fastest first; the next wave is needed only if none of
        these is accepted."""
        space = self.space
        defaults = self._screen([space.default(name) for name in space.formats])
        limit = _FORMAT_FACTOR * min(defaults.values(), default=0.0)
        slow = [spec.format for spec, p50 in defaults.items() if p50 > limit]
        # A failed default says nothing about its format.
        failed = [name for name in space.formats if space.default(name) not in defaults]
        fast = [spec.format for spec in sorted(defaults, key=lambda one: defaults[one])] + failed
        fast = [name for name in fast if name not in slow]
        seen: dict[ArtifactSpec, float] = {}
        later: list[ArtifactSpec] = []
        float32 = True
        for name in fast:
            specs = space.specs(name)
            now = [one for one in specs if one in defaults or bits_of(one.quantization) < 16]
            now += [one for one in specs if float32 and bits_of(one.quantization) >= 32]
            found = self._screen(list(dict.fromkeys(now)))
            seen |= found
            later += [one for one in specs if one not in now]
            # If float32 does not pay in the fastest format, it does not in others.
            float32 = float32 and self._float32_pays(found)
        best = better_half(seen)
        shortlisted = self._screen(self._with_shortlists(best))
        first = better_half(seen | shortlisted)
        yield first
        rest = [one for one in (*seen, *later) if one not in best]
        shortlisted |= self._screen(self._with_shortlists(rest))
        others = seen | shortlisted | self._screen(later)
        yield sorted((one for one in others if one not in first), key=lambda one: others[one])
        seen = self._screen([one for name in slow for one in space.specs(name)])
        others = seen | self._screen(self._with_shortlists(list(seen)))
        yield sorted(others, key=lambda one: others[one])

    def _with_shortlists(self, specs: Sequence[ArtifactSpec]) -> list[ArtifactSpec]:
        """The same artifacts with shortlists, where there are any."""
        return [one for spec in specs if (one := self.space.with_shortlist(spec))]

    @staticmethod
    def _float32_pays(found: Mapping[ArtifactSpec, float]) -> bool:
        """Whether float32 is as fast as fewer bits; True if one of them was not measured."""
        float32 = [p50 for spec, p50 in found.items() if bits_of(spec.quantization) >= 32]
        quantized = [p50 for spec, p50 in found.items() if bits_of(spec.quantization) < 16]
        return not float32 or not quantized or min(float32) <= min(quantized)

    def _screen(self, specs: Sequence[ArtifactSpec]) -> dict[ArtifactSpec, float]:
        """Export artifacts and run them with and without drafts: the better p50, in ms."""
        candidates = []
        for spec in specs:
            self._check_time()
            if self.runner.export(spec):
                ways = self.space.candidates(spec)
                candidates += [
                    way
                    for way in ways
                    if replace(way, draft_tokens=ways[0].draft_tokens) == ways[0]
                ]
        found: dict[ArtifactSpec, float] = {}
        for one in self._ranked(candidates, FIRST):
            found.setdefault(one.spec, self._p50(one))
        return found

    def _measure_wave(self, wave: Sequence[ArtifactSpec]) -> bool:
        """Find the best way to run each artifact, then measure the best ones on all rows.

        Returns whether one is accepted.
        """
        more = SECOND if self._has_more(SECOND) else FIRST
        ways: dict[str, list[Candidate]] = {}
        best = []
        for spec in wave:
            known = ways.get(spec.format)
            if not known:
                # A good way to run one artifact of a format is good for the others.
                found = self._ranked(self.space.candidates(spec), FIRST)
                known = self._ranked(found[: -(-len(found) // 2)], more)[:_WAYS]
                ways[spec.format] = known
            best += self._ranked([replace(way, spec=spec) for way in known], more)[:1]
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

    def _measure_best_so_far(self) -> None:
        """After the time limit: measure the fastest on all rows, until one is accepted."""
        waiting = [one for one in self.trials.values() if one.score is None and not one.outcome]
        for one in sorted(waiting, key=lambda one: one.timed.p50):
            if self.ranking():
                return
            if not self._is_rejected(one.candidate.spec):
                self._measure_in_full([one.candidate])

    def _is_rejected(self, spec: ArtifactSpec) -> bool:
        """Whether an artifact exceeds the accuracy budget on all rows."""
        return any(
            one.score is not None and not one.accepted
            for one in self.trials.values()
            if one.candidate.spec == spec
        )

    def _ranked(self, candidates: Sequence[Candidate], count: int) -> list[Candidate]:
        """The candidates by p50 on `count` rows, without those that fail or are rejected early."""
        found: list[Candidate] = []
        for group in self.runner.groups(candidates):
            self._check_time()
            for candidate, timed in self.runner.time_interleaved(group, count).items():
                self.trials[candidate] = trial = Trial(candidate, timed)
                indices = self.runner.row_indices(count)[: len(self.runner.rows)]
                answers = timed.answers[: len(indices)]
                trial.sample_drop = self.accuracy_budget.sample_drop(indices, answers)
                if self.accuracy_budget.rejects_early(indices, answers):
                    trial.outcome = f"out of the accuracy budget after {count} answers"
                else:
                    found.append(candidate)
        return sorted(found, key=self._p50)

    def _p50(self, candidate: Candidate) -> float:
        return self.trials[candidate].timed.p50

    def _has_more(self, count: int) -> bool:
        return len(self.runner.rows) > count

    def _measure_in_full(self, candidates: Sequence[Candidate]) -> None:
        for candidate, timed in self.runner.time_interleaved(candidates, self.full_count).items():
            answers = timed.answers[: len(self.runner.rows)]
            score = self.accuracy_budget.score(answers)
            lost, won = self.accuracy_budget.lost_and_won(answers)
            self.trials[candidate] = Trial(
                candidate,
                timed,
                score=score,
                drop=self.accuracy_budget.source_score - score,
                lost=lost,
                won=won,
                accepted=self.accuracy_budget.accepts(score),
                meets=judge(timed.ms, self.target_ms).word == MEETS,
            )

    def _check_time(self) -> None:
        """Stop in time to measure the fastest candidate on all rows.

        Raises:
            TimeUpError: there is no more time than that.
        """
        if self.time_limit is None:
            return
        fastest = min((one.timed.p50 for one in self.trials.values()), default=0.0)
        if self.seconds + 1.3 * self.full_count * fastest / 1000 >= self.time_limit:
            raise TimeUpError


def better_half(medians: Mapping[ArtifactSpec, float]) -> list[ArtifactSpec]:
    """The faster half, at least three, and those nearly as fast; the fastest first."""
    order = sorted(medians, key=lambda one: medians[one])
    if not order:
        return []
    last = medians[order[min(len(order), max(3, -(-len(order) // 2))) - 1]]
    return [one for one in order if medians[one] <= max(last, _NEAR * medians[order[0]])]
