"""The search on stored measurements, which it reads as those of an earlier call."""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.bench.compiler.accuracy_budget import AccuracyBudget
from edge.bench.compiler.advice import verdict
from edge.bench.compiler.report import table
from edge.bench.compiler.search import FIRST, SECOND, THIRD, Search, better_half
from edge.bench.compiler.space import ArtifactSpec, Candidate, Space, find_quantizations
from edge.bench.compiler.trial import Trial
from edge.bench.compiler.trial_store import TrialStore
from edge.bench.compiler.trials import TrialRunner
from edge.runtime.errors import MissingExtraError, UsageError
from edge.runtime.rows import Row

ROWS = [Row(f"question {n}", f"answer {n}") for n in range(1000)]
SOURCE = [row.target if n % 2 else "wrong" for n, row in enumerate(ROWS)]
# Milliseconds of a format's float32 artifact on one thread.
SPEED = {"onnx": 10.0, "ctranslate2": 14.0, "gguf": 20.0, "torchscript": 60.0}
# Times as fast as float32, and of 1,000 answers those that get worse.
QUANTIZED = {"32": (1.0, 0), "16": (1.1, 1), "8": (2.0, 3), "4_mixed": (2.4, 8), "4": (3.0, 30)}


class Factory:
    """Fills a store with measurements of an imaginary machine."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self.random = random.Random(5)

    def fill(self, store: TrialStore, space: Space) -> None:
        store.put("source", {"plain_greedy": True, "generation": {}, "prompt": "{input}"})
        store.put("reference", {"answers": SOURCE})
        for candidate in space.all_candidates():
            spec = candidate.spec
            store.put(f"export-{spec.name}", {"size": 1000, "parity": {}, "seconds": 1.0})
            place = store.artifact(spec)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(self.artifacts / "onnx-int8")
            for count in (FIRST, SECOND, THIRD, len(ROWS)):
                store.put(f"timed-{candidate.name}-{count}", self.timed(candidate, count))

    def timed(self, candidate: Candidate, count: int) -> dict[str, Any]:
        speed, worse = QUANTIZED[bits(candidate.spec.quantization)]
        ms = SPEED[candidate.spec.format] / speed
        ms *= 0.8 if candidate.spec.shortlist else 1.0
        ms *= 0.75 if candidate.draft_tokens else 1.0
        ms *= {1: 1.0, 2: 0.7}[candidate.threads]
        ms *= 1.1 if candidate.settings.get("spinning") is False else 1.0
        places = [n * len(ROWS) // count for n in range(count)]
        # Odd places are those that the source answers.
        lost = set(random.Random(worse).sample(range(1, len(ROWS), 2), worse))
        return {
            "ms": [ms * self.random.uniform(0.97, 1.06) for _ in places],
            "answers": ["worse" if place in lost else SOURCE[place] for place in places],
            "new_tokens": [12] * count,
            "truncated": 0,
            "load_ms": 50.0,
            "peak_rss": 1 << 27,
        }


def bits(quantization: str) -> str:
    if "mixed" in quantization:
        return "4_mixed"
    return next(b for b in ("32", "16", "8", "4") if b in quantization)


@pytest.fixture(scope="module")
def space() -> Space:
    found, skipped = find_quantizations((), ())
    assert not skipped
    return Space(found, [1, 2], shortlist=True, drafts=True)


@pytest.fixture(scope="module")
def runner(
    tmp_path_factory: pytest.TempPathFactory, artifacts: Path, space: Space
) -> Iterator[TrialRunner]:
    """A runner whose store has every measurement already."""
    folder = tmp_path_factory.mktemp("runner")
    with TrialStore.open(folder / "out.work", {"model": 1}, folder / "out") as store:
        Factory(artifacts).fill(store, space)
        runner = TrialRunner(store, ROWS, {}, lambda _: None)
        yield runner
        runner.close()


def searched(
    runner: TrialRunner, space: Space, max_drop: float, *, exhaustive: bool = False
) -> Search:
    targets = [row.target or "" for row in ROWS]
    search = Search(
        runner,
        space,
        AccuracyBudget("exact_match", max_drop, targets, runner.reference_answers()),
        100.0,
    )
    search.run_exhaustive() if exhaustive else search.run()
    return search


def answers(search: Search) -> int:
    """How many answers a search paid for."""
    return sum(
        len(json.loads(path.read_text())["ms"])
        for candidate in search.trials
        for path in search.runner.store.folder.glob(f"entries/timed-{candidate.name}-*.json")
        if int(path.stem.rpartition("-")[2]) <= len(search.trials[candidate].timed.ms)
    )


# The drop that 4 bits take (3 %), that mixed ones do (0.8 %), 8 bits' 0.3 %, and none at all.
@pytest.mark.parametrize(
    ("max_drop", "bits_chosen"), [(0.05, "4"), (0.01, "4_mixed"), (0.005, "8"), (0.0, "32")]
)
def test_what_is_found_is_what_trying_everything_finds(
    runner: TrialRunner, space: Space, max_drop: float, bits_chosen: str
) -> None:
    halved = searched(runner, space, max_drop)
    exhausted = searched(runner, space, max_drop, exhaustive=True)
    best, known = halved.ranking()[0], exhausted.ranking()[0]
    assert bits(best.candidate.spec.quantization) == bits_chosen
    assert best.candidate == known.candidate
    assert best.meets
    assert len(exhausted.trials) == len(space.all_candidates())
    if max_drop:  # where float32 alone is accepted, everything before it has to be looked at
        assert answers(halved) < 0.25 * answers(exhausted)
    for one in halved.trials.values():
        assert one.accepted is (one.drop is not None and one.drop <= max_drop + 1e-9)


def test_nothing_within_the_budget_is_not_chosen(runner: TrialRunner, space: Space) -> None:
    only_four = Space({"onnx": ["int4"], "gguf": ["q4_0"]}, [1, 2], shortlist=True, drafts=True)
    search = searched(runner, only_four, 0.005)
    assert search.ranking() == []
    best: dict[str, Trial] = {}  # what was looked at longest, of each artifact
    for one in search.trials.values():
        known = best.setdefault(one.candidate.spec.name, one)
        if len(one.timed.ms) > len(known.timed.ms):
            best[one.candidate.spec.name] = one
    assert set(best) == {"onnx-int4", "onnx-int4-shortlist", "gguf-q4_0"}
    outcomes = {line.name: line.outcome for line in table(search, None)}
    for one in best.values():
        assert outcomes[one.candidate.name].startswith("out of the accuracy budget")
    assert verdict(search, None) == "no candidate is within the accuracy budget"


def test_the_table_marks_what_nothing_else_dominates(runner: TrialRunner, space: Space) -> None:
    lines = table(searched(runner, space, 0.05, exhaustive=True), None)
    front = [line for line in lines if line.pareto]
    assert front[0] is lines[0]
    for one, other in itertools.pairwise(front):  # slower, so more accurate: all are of one size
        assert one.score is not None
        assert other.score is not None
        assert one.p50_ms <= other.p50_ms
        assert one.score < other.score


def test_no_time_left_measures_the_best_so_far(runner: TrialRunner, space: Space) -> None:
    targets = [row.target or "" for row in ROWS]
    budget = AccuracyBudget("exact_match", 0.005, targets, runner.reference_answers())
    search = Search(runner, space, budget, 100.0, time_limit=1.0)
    search.run()  # a full measurement takes seconds more than that
    assert search.time_up
    assert [one for one in search.trials.values() if one.accepted]
    assert len(search.trials) < 10


def test_the_better_half_is_three_at_least_and_what_is_near() -> None:
    medians = {ArtifactSpec("onnx", name): ms for name, ms in (("a", 1.0), ("b", 1.2), ("c", 9.0))}
    assert better_half(medians) == list(medians)
    assert better_half({}) == []
    more = medians | {ArtifactSpec("gguf", name): 10.0 + n for n, name in enumerate("def")}
    assert better_half(more) == list(medians)


def test_quantizations_are_those_that_a_format_has() -> None:
    found, _ = find_quantizations((), ("int4",))
    assert found == {"onnx": ["int4"], "gguf": ["q4_k_m"]}
    found, _ = find_quantizations(("ctranslate2",), ("auto", "none"))
    assert found == {"ctranslate2": ["int8", "float32"]}
    with pytest.raises(UsageError, match="quantization"):
        find_quantizations((), ("int4", "int3"))
    with pytest.raises(UsageError, match="format"):
        find_quantizations(("onix",), ())
    assert find_quantizations(("onnx",), ())[0]["onnx"][0] == "int8"


def test_a_format_without_its_library_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)  # what Python has for a module it can't find
    monkeypatch.delitem(sys.modules, "edge.export.gguf.exporter", raising=False)
    found, skipped = find_quantizations((), ("int4",))
    assert list(found) == ["onnx"]
    assert list(skipped) == ["gguf"]
    assert "pip install" in skipped["gguf"]
    with pytest.raises(MissingExtraError, match="gguf"):
        find_quantizations(("gguf",), ())
