"""Tuning stores what it measured and nothing else changes; what was stored is used, and yields."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bench import tune as tuning_module
from edge.bench.thread_numbers import thread_numbers
from edge.bench.timing import machine
from edge.bench.tune import choose, measure_settings, tune
from edge.runtime import Artifact, load
from edge.runtime.engines import ENGINES
from edge.runtime.errors import ArtifactError, EdgeError, UsageError
from edge.runtime.platform.cpu import parse_cpu_info, physical_cores, usable_cores
from edge.runtime.rows import read_rows
from samples import FORMATS

EIGHT_BIT = {"gguf": "q8_0"}
TEXT = "where was um was the bridge built?"


def copy_of(artifacts: Path, format_name: str, tmp_path: Path) -> Path:
    name = f"{format_name}-{EIGHT_BIT.get(format_name, 'int8')}"
    return Path(shutil.copytree(artifacts / name, tmp_path / name))


@pytest.fixture(autouse=True)
def torch_threads_as_before() -> Iterator[None]:
    """The torchscript engine sets PyTorch's threads, which would slow down what comes after."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def onnx(artifacts: Path, tmp_path: Path) -> Path:
    return copy_of(artifacts, "onnx", tmp_path)


def manifest_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "edge.json").read_text(encoding="utf-8"))
    return values


def set_runtime(folder: Path, **settings: Any) -> None:
    values = manifest_of(folder)
    values["runtime"].update(settings)
    (folder / "edge.json").write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.alone  # it tries two threads, which wait for each other where another test has a core
@pytest.mark.parametrize("format_name", FORMATS)
def test_settings_are_stored_with_what_was_measured(
    format_name: str, artifacts: Path, tmp_path: Path
) -> None:
    folder = copy_of(artifacts, format_name, tmp_path)
    with load(folder) as model:
        before = model.generate(TEXT).text
    old = manifest_of(folder)
    seen: list[tuple[str, int, int]] = []
    result = tune(folder, on_progress=lambda *step: seen.append(step))
    new = manifest_of(folder)
    stored = new.pop("runtime")
    tuned = stored.pop("tuned")
    assert stored == {**old.pop("runtime"), **result.chosen}
    assert new == old
    assert list(new) == list(old)
    possible = ENGINES.load(format_name).tunable(thread_numbers(physical_cores()))
    assert [candidate.settings for candidate in result.candidates] == possible
    assert result.chosen in possible
    assert len(tuned["candidates"]) == len(possible)
    for candidate in tuned["candidates"]:
        assert 0 < candidate["p25_ms"] <= candidate["p50_ms"] <= candidate["p75_ms"]
        assert candidate["runs"] == 30
    assert tuned["machine"]["cores"] == usable_cores()
    assert (tuned["input_tokens"], tuned["new_tokens"]) == (32, 16)
    assert seen[-1] == ("confirming", 30, 30)
    Artifact.open(folder, verify=True)
    with load(folder) as model:
        assert model.engine.threads == result.chosen["threads"]
        assert model.generate(TEXT).text == before
    assert sorted(path.name for path in folder.iterdir()) == sorted([*old["files"], "edge.json"])


def test_the_manifest_names_arm_instruction_sets(
    onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = "fp asimd aes atomics fphp asimdhp asimddp i8mm bf16 sve2"
    text = f"Features : {features}\nCPU implementer : 0x41\nCPU part : 0xd49\n"
    monkeypatch.setattr(machine, "cpu_info", lambda: parse_cpu_info(text))
    tune(onnx, threads=[1])
    stored = manifest_of(onnx)["runtime"]["tuned"]["machine"]
    assert stored["cpu"] == "Neoverse-N2"
    assert stored["isa"] == ["asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve2"]


def test_many_candidates_are_screened(
    onnx: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning_module, "physical_cores", lambda: 3)
    rows = read_rows(dataset / "dev.jsonl")
    found = measure_settings(onnx, rows=rows)
    possible = ENGINES.load("onnx").tunable([1, 2, 3])
    kept = [candidate.settings for candidate in found.candidates]
    assert kept[0] == possible[0]
    assert 3 <= len(kept) <= 4
    assert found.chosen in kept
    given_up = [candidate.settings for candidate in found.screened]
    assert sorted(map(str, [*kept, *given_up])) == sorted(map(str, possible))
    assert 5 < found.input_tokens < 64
    assert "tuned" not in manifest_of(onnx)["runtime"]


@pytest.mark.parametrize("name", ["onnx-int8", "ctranslate2-int8"])
def test_drafts_are_measured_on_rows_and_become_the_default_where_they_pay(
    artifacts: Path, dataset: Path, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(artifacts / name, tmp_path / name))
    found = tune(folder, rows=read_rows(dataset / "dev.jsonl"), threads=[1])
    stored = manifest_of(folder)["runtime"]
    if name == "ctranslate2-int8":
        assert found.drafts is None
        assert "drafts" not in stored
        return
    assert found.drafts is not None
    gain = found.drafts.gain
    assert gain.tokens_per_step > 1.2  # a model that copies
    assert found.drafts.longest == (6 if gain.speedup >= 1.05 else 0)
    assert stored["drafts"]["break_even"] == pytest.approx(
        max(1.0, gain.tokens_per_step / gain.speedup), abs=1e-3
    )
    with load(folder) as model:
        assert model.defaults.prompt_lookup_num_tokens == found.drafts.longest
    # Without rows nothing is known of drafts, and what was measured stays, with its date.
    tune(folder, threads=[1])
    assert manifest_of(folder)["runtime"]["drafts"] == stored["drafts"]
    assert stored["drafts"]["date"] == found.drafts.created


@pytest.mark.parametrize(
    "settings", [{"drafts": {"longest": -1}}, {"drafts": 6}, {"spinning": "x"}, {"threads": "x"}]
)
def test_tuning_repairs_malformed_settings(
    edge: Callable[..., Any], onnx: Path, settings: dict[str, Any]
) -> None:
    set_runtime(onnx, **settings)
    with pytest.raises(ArtifactError, match="run edge tune to reset it"):
        load(onnx)
    if "drafts" in settings:
        assert "drafts=invalid (edge tune resets it)" in edge("info", onnx).out
    tune(onnx, threads=[1])
    assert "drafts" not in manifest_of(onnx)["runtime"]
    with load(onnx) as model:
        assert model.generate(TEXT).text


@pytest.mark.parametrize("stored", [{}, {"drafts": {"longest": 4}}])
def test_the_graph_of_default_drafts_is_opened_at_once(onnx: Path, stored: dict[str, Any]) -> None:
    set_runtime(onnx, **stored)
    with load(onnx) as model:
        opened = set(model.engine._graphs)  # type: ignore[attr-defined]
    assert opened == ({"model.onnx", "speculative.onnx"} if stored else {"model.onnx"})


def test_more_threads_must_be_worth_it() -> None:
    noise = np.tile([0.9, 1.0, 1.1], 10)
    rounds = np.ones(30)
    assert choose(np.array([10 * rounds, 10.2 * rounds])) == 0
    assert choose(np.array([10 * rounds, 9.8 * rounds])) == 0  # 2 % is too little
    assert choose(np.array([10 * rounds, 7 * rounds])) == 1
    assert choose(np.array([10 * rounds, 7 * rounds, 6.9 * rounds])) == 1
    # Faster in the median, but in one round of three slower.
    assert choose(np.array([10 * noise, np.tile([9.5, 9.4, 9.3], 10)])) == 0
    # A moment that slows both down is no difference between them.
    assert choose(np.array([10 * noise, 7 * noise])) == 1


def test_numbers_of_threads() -> None:
    assert thread_numbers(1) == [1]
    assert thread_numbers(2) == [1, 2]
    assert thread_numbers(5) == [1, 2, 3, 4, 5]
    assert thread_numbers(16) == [1, 2, 3, 4, 6, 8, 12, 16]
    assert thread_numbers(40) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40]


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_artifact_tuned_on_a_larger_machine(
    format_name: str, artifacts: Path, tmp_path: Path
) -> None:
    folder = copy_of(artifacts, format_name, tmp_path)
    set_runtime(folder, threads=4096, some_later_setting="x")
    with load(folder) as model:
        assert model.engine.threads == usable_cores()
        assert model.generate(TEXT, max_new_tokens=2).token_ids
    with load(folder, threads=1) as model:
        assert model.engine.threads == 1


def test_settings_give_way_at_load(onnx: Path) -> None:
    with load(onnx) as model:
        expected = model.generate(TEXT).text
    set_runtime(onnx, spinning=True, threads=1)
    with load(onnx, threads=2, settings={"spinning": False}) as model:
        assert model.engine.threads == 2
        assert model.artifact.manifest.runtime["spinning"] is False
        assert model.generate(TEXT).text == expected
    with pytest.raises(UsageError, match="spinning must be True or False, not 1"):
        load(onnx, settings={"spinning": 1})
    with pytest.raises(UsageError, match="onnx setting 'spining'.*Did you mean 'spinning'"):
        load(onnx, settings={"spining": True})


@pytest.mark.parametrize(
    "settings",
    [{"threads": 0}, {"threads": "2"}, {"threads": True}, {"spinning": "yes"}, {"spinning": 1}],
    ids=str,
)
def test_settings_that_are_none(settings: dict[str, Any], onnx: Path) -> None:
    set_runtime(onnx, **settings)
    [name] = settings
    with pytest.raises(ArtifactError, match=rf"runtime\.{name} in edge\.json must be"):
        load(onnx)


def test_a_write_that_fails_leaves_the_manifest(
    onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in onnx.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeError, match="no space left on the disk; nothing was written"):
        tune(onnx, threads=[1])
    assert {path.name: path.read_bytes() for path in onnx.iterdir()} == before


def test_the_command(edge: Callable[..., Any], onnx: Path, dataset: Path) -> None:
    ended = edge("tune", onnx.parent, "--data", dataset, "--threads-to-try", "1")
    assert ended.status == 0, ended.err
    assert "threads=1, spinning=True" in ended.out
    assert "chosen" in ended.out
    told = edge("info", onnx).out
    assert "threads=1, spinning=True, drafts=" in told
    assert " (tuned 20" in told
    assert "candidates" not in told
    assert edge("verify", onnx).status == 0


def test_export_can_tune(edge: Callable[..., Any], trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    ended = edge("export", trained, "--format", "onnx", "--output", output, "--tune")
    assert ended.status == 0, ended.err
    assert manifest_of(output)["runtime"]["tuned"]["candidates"]
    Artifact.open(output, verify=True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--threads-to-try", "0"), "must be from 1 to"),
        (("--threads-to-try", "9999"), "must be from 1 to"),
        (("--threads-to-try", "1,x"), "whole numbers such as 1,2"),
        (("--threads-to-try", ""), "whole numbers such as 1,2"),
        (("--runs", "3"), "at least 30"),
        (("--data", "nowhere.jsonl"), "no such file"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(
    arguments: tuple[str, ...],
    complaint: str,
    assert_refused: Callable[..., str],
    onnx: Path,
) -> None:
    before = (onnx / "edge.json").read_bytes()
    assert complaint in assert_refused("tune", onnx, *arguments)
    assert (onnx / "edge.json").read_bytes() == before


def test_a_model_folder_is_no_artifact(assert_refused: Callable[..., str], trained: Path) -> None:
    assert "is not an artifact" in assert_refused("tune", trained)
