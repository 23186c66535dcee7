"""Training with added characters: rows of the embedding, LoRA, merge, and a second training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge.runtime.errors import DataError
from edge.train.config import TrainConfig
from edge.train.trainer import train

pytestmark = pytest.mark.usefixtures("one_torch_thread")
ROWS = [{"input": f"show {n}\nlist", "target": f"é{n}:\n    {n}"} for n in range(40)]
ADDED = {"\n", " ", "\n   ", "é"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "separate head"])
def base(request: pytest.FixtureRequest, random_model: Callable[..., Path]) -> Path:
    return random_model(tied=request.param)


def config(rows: Path, base: Path, output: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-2, "threads": 1, "eval_steps": 0}
    settings |= {"dev_ratio": 0.2, "max_target_length": 16} | changes
    return TrainConfig(data=rows, output=output, model=str(base), **settings)


def changed_rows(before: torch.Tensor, after: torch.Tensor) -> set[int]:
    return set((before != after).any(dim=1).nonzero().flatten().tolist())


def test_an_adapter_trains_the_new_rows_and_merges_them(
    rows: Path, base: Path, tmp_path: Path, edge: Callable[..., Any]
) -> None:
    result = train(config(rows, base, tmp_path / "out", method="lora", learning_rate=0.1))
    added = result.record["vocabulary"]["added"]
    assert set(added) == ADDED
    assert "verbatim_match" in result.metrics
    before = load_file(base / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    weights = [name for name in ("shared.weight", "lm_head.weight") if name in before]
    assert before.keys() == after.keys()
    for name in weights:
        assert changed_rows(before[name], after[name]) == set(added.values())
    adapter = tmp_path / "out" / "adapter"
    names = [name for name in load_file(adapter / "adapter_model.safetensors") if "token" in name]
    assert len(names) == len(weights)
    # The adapter's folder has all that merging needs: the base has another tokenizer.
    ended = edge("merge", base, adapter, "--output", tmp_path / "merged")
    assert ended.status == 0, ended
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert all(torch.equal(weight, merged[name]) for name, weight in after.items())
    for file in ("tokenizer.json", "config.json"):
        files = [json.loads((tmp_path / f / file).read_text()) for f in ("out", "merged")]
        key = "model" if file.startswith("token") else "added_characters"
        assert files[0][key] == files[1][key]
    # Rows of another size are refused.
    broken = {k: v[:, 1:] if "token" in k else v
              for k, v in load_file(adapter / "adapter_model.safetensors").items()}  # fmt: skip
    save_file({k: v.contiguous() for k, v in broken.items()}, adapter / "adapter_model.safetensors")
    ended = edge("merge", base, adapter, "--output", tmp_path / "refused")
    assert ended.status != 0
    assert "another base model" in ended.err
    assert not (tmp_path / "refused").exists()


def test_a_second_training_knows_the_characters_of_the_first(
    rows: Path, base: Path, tmp_path: Path
) -> None:
    first = train(config(rows, base, tmp_path / "first"))
    more = tmp_path / "more.jsonl"
    more.write_text(
        "".join(json.dumps({**row, "target": row["target"] + "ж"}) + "\n" for row in ROWS)
    )
    second = train(config(more, tmp_path / "first", tmp_path / "second"))
    added = second.record["vocabulary"]["added"]
    assert added == {**first.record["vocabulary"]["added"], "ж": max(added.values())}
    settings = json.loads((tmp_path / "second" / "config.json").read_text())
    assert settings["added_characters"] == added


def test_keep_warns_and_refuse_stops(rows: Path, base: Path, tmp_path: Path) -> None:
    kept = train(config(rows, base, tmp_path / "kept", vocabulary="keep"))
    assert kept.record["vocabulary"] == {"policy": "keep", "added": {}}
    assert any("--vocabulary extend" in warning for warning in kept.warnings)
    with pytest.raises(DataError, match="3 characters"):
        train(config(rows, base, tmp_path / "refused", vocabulary="refuse"))
    assert not (tmp_path / "refused").exists()


def test_the_check_reports_what_is_added(rows: Path, base: Path, edge: Callable[..., Any]) -> None:
    ended = edge("check", rows, "--model", base, "--dev-ratio", 0.2)
    shown = " ".join(ended.out.split())
    assert ended.status == 0, ended
    assert "extended by 4 characters: \\n repeated or outer spaces é (\\n 3 spaces)" in shown
    assert "100.0% of the rows come back from encoding and decoding, 0.0% without" in shown
    lengths = edge("data", "lengths", rows, "--model", base)
    assert "100.0% of the rows come back" in lengths.out
    assert edge("data", "lengths", rows, "--model", base, "--vocabulary", "refuse").status == 2
