"""The search on recorded measurements: it reads them as it would those of an earlier call."""

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
from edge.bench.compiler.search import FIRST, SECOND, THIRD, Search, Trial, better_half
from edge.bench.compiler.space import ArtifactSpec, Candidate, Space, find_quantizations
from edge.bench.compiler.trial_store import Record
from edge.bench.compiler.trials import TrialRunner
from edge.runtime.errors import MissingExtraError, OutputExistsError, UsageError
from edge.runtime.rows import Row

ROWS = [Row(f"question {n}", f"answer {n}") for n in range(1000)]
SOURCE = [row.target if n % 2 else "wrong" for n, row in enumerate(ROWS)]
# Milliseconds of a format's float32 artifact on one thread.
SPEED = {"onnx": 10.0, "ctranslate2": 14.0, "gguf": 20.0, "torchscript": 60.0}
# Times as fast as float32, and of 1,000 answers those that get worse.
QUANTIZED = {"32": (1.0, 0), "16": (1.1, 1), "8": (2.0, 3), "4_mixed": (2.4, 8), "4": (3.0, 30)}


class Factory:
    """Fills a record with what a machine could have measured."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self.random = random.Random(5)

    def fill(self, record: Record, space: Space) -> None:
        record.put("source", {"plain_greedy": True})
        record.put("reference", {"answers": SOURCE})
        for candidate in space.everything():
            variant = candidate.variant
            record.put(f"export-{variant.name}", {"size": 1000, "parity": {}, "seconds": 1.0})
            place = record.artifact(variant)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(self.artifacts / "onnx-int8")
            for count in (FIRST, SECOND, THIRD, len(ROWS)):
                record.put(f"timed-{candidate.name}-{count}", self.timed(candidate, count))

    def timed(self, candidate: Candidate, count: int) -> dict[str, Any]:
        speed, worse = QUANTIZED[bits(candidate.variant.quantization)]
        ms = SPEED[candidate.variant.format] / speed
        ms *= 0.8 if candidate.variant.shortlist else 1.0
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
def lab(
    tmp_path_factory: pytest.TempPathFactory, artifacts: Path, space: Space
) -> Iterator[TrialRunner]:
    """Everything is measured already; a search adds nothing."""
    folder = tmp_path_factory.mktemp("lab")
    with Record.open(folder / "out.work", {"model": 1}, folder / "out") as record:
        Factory(artifacts).fill(record, space)
        lab = TrialRunner(record, ROWS, {}, lambda _: None)
        yield lab
        lab.close()


def searched(
    lab: TrialRunner, space: Space, max_drop: float, *, exhaustive: bool = False
) -> Search:
    targets = [row.target or "" for row in ROWS]
    search = Search(
        lab, space, AccuracyBudget("exact_match", max_drop, targets, lab.reference()), 100.0
    )
    search.exhaust() if exhaustive else search.run()
    return search


def answers(search: Search) -> int:
    """How many answers a search paid for."""
    return sum(
        len(json.loads(path.read_text())["ms"])
        for candidate in search.tried
        for path in search.lab.record.folder.glob(f"entries/timed-{candidate.name}-*.json")
        if int(path.stem.rpartition("-")[2]) <= len(search.tried[candidate].timed.ms)
    )


# The drop that 4 bits take (3 %), that mixed ones do (0.8 %), 8 bits' 0.3 %, and none at all.
@pytest.mark.parametrize(
    ("max_drop", "bits_chosen"), [(0.05, "4"), (0.01, "4_mixed"), (0.005, "8"), (0.0, "32")]
)
def test_what_is_found_is_what_trying_everything_finds(
    lab: TrialRunner, space: Space, max_drop: float, bits_chosen: str
) -> None:
    halved = searched(lab, space, max_drop)
    exhausted = searched(lab, space, max_drop, exhaustive=True)
    best, known = halved.ranking()[0], exhausted.ranking()[0]
    assert bits(best.candidate.variant.quantization) == bits_chosen
    assert best.candidate == known.candidate
    assert best.meets
    assert len(exhausted.tried) == len(space.everything())
    if max_drop:  # where float32 alone is accepted, everything before it has to be looked at
        assert answers(halved) < 0.25 * answers(exhausted)
    for one in halved.tried.values():
        assert one.accepted is (one.drop is not None and one.drop <= max_drop + 1e-9)


def test_nothing_within_the_budget_is_said_and_not_chosen(lab: TrialRunner, space: Space) -> None:
    only_four = Space({"onnx": ["int4"], "gguf": ["q4_0"]}, [1, 2], shortlist=True, drafts=True)
    search = searched(lab, only_four, 0.005)
    assert search.ranking() == []
    best: dict[str, Trial] = {}  # what was looked at longest, of each artifact
    for one in search.tried.values():
        known = best.setdefault(one.candidate.variant.name, one)
        if len(one.timed.ms) > len(known.timed.ms):
            best[one.candidate.variant.name] = one
    assert set(best) == {"onnx-int4", "onnx-int4-shortlist", "gguf-q4_0"}
    outcomes = {line.name: line.outcome for line in table(search, None)}
    for one in best.values():
        assert outcomes[one.candidate.name].startswith("out of the accuracy budget")
    assert verdict(search, None) == "nothing is within the accuracy budget"


def test_the_table_marks_what_nothing_else_dominates(lab: TrialRunner, space: Space) -> None:
    lines = table(searched(lab, space, 0.05, exhaustive=True), None)
    front = [line for line in lines if line.pareto]
    assert front[0] is lines[0]
    for one, other in itertools.pairwise(front):  # slower, so more accurate: all are of one size
        assert one.score is not None
        assert other.score is not None
        assert one.p50_ms <= other.p50_ms
        assert one.score < other.score


def test_no_time_left_measures_the_best_so_far(lab: TrialRunner, space: Space) -> None:
    targets = [row.target or "" for row in ROWS]
    judge = AccuracyBudget("exact_match", 0.005, targets, lab.reference())
    search = Search(lab, space, judge, 100.0, budget=1.0)
    search.run()  # a full measurement takes seconds more than that
    assert search.time_up
    assert [one for one in search.tried.values() if one.accepted]
    assert len(search.tried) < 10


def test_the_better_half_is_three_at_least_and_what_is_near() -> None:
    medians = {ArtifactSpec("onnx", name): ms for name, ms in (("a", 1.0), ("b", 1.2), ("c", 9.0))}
    assert better_half(medians) == list(medians)
    assert better_half({}) == []
    more = medians | {ArtifactSpec("gguf", name): 10.0 + n for n, name in enumerate("def")}
    assert better_half(more) == list(medians)


def test_a_record_of_something_else_starts_anew(tmp_path: Path) -> None:
    work, output = tmp_path / "out.work", tmp_path / "out"
    with Record.open(work, {"data": "one"}, output) as record:
        record.put("timed", {"ms": [1.0]})
    with Record.open(work, {"data": "one"}, output) as record:
        assert record.found == 1
        assert record.get("timed") == {"ms": [1.0]}
        (work / "entries" / "cut.json").write_text('{"ms": [1.')
        assert record.get("cut") is None
        with pytest.raises(UsageError, match="another process"), Record.open(work, {}, output):
            pass
    with Record.open(work, {"data": "other"}, output) as record:
        assert record.found == 0
        assert record.get("timed") is None


def test_a_folder_that_is_no_record_is_left_alone(tmp_path: Path) -> None:
    work = tmp_path / "out.work"
    work.mkdir()
    (work / "thesis.txt").write_text("years of work")
    with (
        pytest.raises(OutputExistsError, match="no record"),
        Record.open(work, {}, tmp_path / "out"),
    ):
        pass
    assert (work / "thesis.txt").read_text() == "years of work"


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
