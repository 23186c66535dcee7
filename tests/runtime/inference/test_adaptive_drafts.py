"""Default drafts follow what recent answers gained by them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.runtime import load
from edge.runtime.errors import ArtifactError
from edge.runtime.inference.adaptive_drafts import AdaptiveDrafts
from edge.runtime.rows import read_rows

COPIED, NOT_COPIED = (12, 3), (12, 12)  # tokens and decoder steps of an answer


def answer(drafts: AdaptiveDrafts, kind: tuple[int, int], count: int) -> list[bool]:
    """Count answers of one kind; returns which of them drafted."""
    drafted = []
    for _ in range(count):
        drafted.append(drafts.wanted)
        tokens, steps = kind
        drafts.observe(tokens, steps if drafted[-1] else None)
    return drafted


def test_drafts_are_turned_off_where_nothing_is_copied() -> None:
    drafted = answer(AdaptiveDrafts(1.3), NOT_COPIED, 3300)
    assert drafted[:4] == [True] * 4
    assert sum(drafted) < 0.035 * len(drafted)
    assert sum(drafted[-330:]) == 10  # one in 33 still tries


def test_they_come_back_with_inputs_that_are_copied() -> None:
    drafts = AdaptiveDrafts(1.3)
    answer(drafts, NOT_COPIED, 500)
    drafted = answer(drafts, COPIED, 100)
    assert not drafted[0]
    assert all(drafted[50:])
    assert sum(answer(drafts, NOT_COPIED, 66)[-33:]) == 1


def test_a_single_bad_answer_turns_nothing_off() -> None:
    drafts = AdaptiveDrafts(1.3)
    assert all(answer(drafts, COPIED, 20))
    assert all(answer(drafts, NOT_COPIED, 1))
    assert all(answer(drafts, COPIED, 20))


def test_the_break_even_point_decides() -> None:
    kind = (10, 5)  # 2 tokens per step
    assert all(answer(AdaptiveDrafts(1.9), kind, 100))
    assert not all(answer(AdaptiveDrafts(2.1), kind, 100))


@pytest.fixture
def tuned(artifacts: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(artifacts / "onnx-int8", tmp_path / "onnx-int8"))
    set_drafts(folder, {"longest": 6, "break_even": 1.5})
    return folder


def set_drafts(folder: Path, drafts: Any) -> None:
    values = json.loads((folder / "edge.json").read_text(encoding="utf-8"))
    values["runtime"]["drafts"] = drafts
    (folder / "edge.json").write_text(json.dumps(values), encoding="utf-8")


def test_a_tuned_artifact_drafts_until_nothing_is_copied(tuned: Path, dataset: Path) -> None:
    text = read_rows(dataset / "dev.jsonl")[0].input
    with load(tuned) as model:
        assert model.defaults.prompt_lookup_num_tokens == 6
        first = model.generate(text)
        assert first.steps is not None
        # Answers of one token are one token per step.
        for _ in range(30):
            model.generate(text, max_new_tokens=1)
        off = model.generate(text)
        assert off.steps is None
        assert off.token_ids == first.token_ids
        assert model.generate_tokens(model.encode([text])[0][0]).steps is None
        asked = model.generate(text, prompt_lookup_num_tokens=6)
        assert asked.steps == first.steps


@pytest.mark.parametrize(
    "drafts",
    [[], 6, {"longest": 65}, {"longest": True}, {"break_even": 0.5}, {"break_even": float("nan")}],
)
def test_malformed_settings_are_one_line(tuned: Path, drafts: Any) -> None:
    set_drafts(tuned, drafts)
    with pytest.raises(ArtifactError, match=r"of runtime\.drafts in edge\.json, longest must be"):
        load(tuned)


def test_a_part_that_a_later_version_wrote_is_ignored(tuned: Path) -> None:
    set_drafts(tuned, {"longest": 4, "window": 7})
    with load(tuned) as model:
        assert model.defaults.prompt_lookup_num_tokens == 4
