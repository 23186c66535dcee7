"""`edge check` and the checks before `edge train`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from edge.runtime.errors import ArtifactError, ModelError
from edge.runtime.platform.memory import free_memory
from edge.train.config import TrainConfig
from edge.train.preflight import memory_estimate, preflight
from edge.train.preflight.memory_estimate import (
    BatchShape,
    activation_floats,
    count_adapter_parameters,
    count_parameters,
    estimate_memory,
)

WriteRows = Callable[[str, Iterable[object]], Path]
ModelFactory = Callable[..., Path]
ROWS = [{"input": f"what is {n} in Rome", "target": f"a river {n}"} for n in range(60)]


@pytest.fixture(scope="module")
def model(random_model: ModelFactory) -> Path:
    return random_model()


def _by_name(checks: Iterable[Any]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for check in checks:
        found.setdefault(check.name, []).append((check.status, check.detail))
    return found


def test_everything_is_fine(edge: Callable[..., Any], write_rows: WriteRows, model: Path) -> None:
    data = write_rows("rows.jsonl", ROWS)
    call = ("check", data, "--model", model, "--dev-ratio", 0.2)
    ended = edge(*call, "--max-source-length", 64)
    assert ended.status == 0, ended
    assert "✗" not in ended.out
    for name in ("environment", "device", "round trip", "evaluation parity", "memory", "disk"):
        assert name in ended.out
    scratch = edge("check", data, "--from-scratch", "tiny", "--dev-ratio", 0.2, "--vocab-size", 120)
    assert scratch.status == 0, scratch


def test_all_problems_are_reported_together(
    edge: Callable[..., Any], assert_refused: Callable[..., str], write_rows: WriteRows, model: Path
) -> None:
    unknown = [{"input": f"list {n}", "target": f"漢字 {n}"} for n in range(40)]
    rows = [*unknown, *({**row, "target": "a river " * 20} for row in ROWS)]
    write_rows("d/train.jsonl", rows)
    data = write_rows("d/dev.jsonl", rows[30:50]).parent
    output = data.parent / "out"
    output.mkdir()
    (output / "precious.txt").write_text("mine")
    options = (
        data, "--model", model, "--max-target-length", 10, "--output", output,
        "--vocabulary", "refuse",
    )  # fmt: skip
    ended = edge("check", *options)
    assert ended.status == 2
    assert ended.err.strip() == (
        "edge: 5 checks failed: vocabulary, round trip, lengths, output cap, output"
    )
    assert "漢字" in ended.out
    line = assert_refused("train", *options)
    for reason in ("40 of 100 targets", "60 of 100 targets", "end after 10 tokens", "--force"):
        assert reason in " ".join(ended.out.split())
        assert reason in line
    assert "--no-check" in line
    assert [path.name for path in output.iterdir()] == ["precious.txt"]


def test_a_model_with_nan_weights_fails(
    edge: Callable[..., Any], write_rows: WriteRows, model: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["shared.weight"][3, 1] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    ended = edge("check", write_rows("rows.jsonl", ROWS), "--model", broken, "--dev-ratio", 0.2)
    assert ended.status == 2
    assert "shared.weight holds NaN or infinite values" in " ".join(ended.out.split())


def test_presets_and_files_are_read_as_in_training(
    edge: Callable[..., Any], assert_refused: Callable[..., str], write_rows: WriteRows, model: Path
) -> None:
    data = write_rows("rows.jsonl", ROWS)
    file = data.parent / "mine.yaml"
    file.write_text("max_source_length: 4\ndev_ratio: 0.2\n")
    call = ("check", data, "--model", model, "--preset", "cpu", "--preset", "quick")
    ended = edge(*call, "--dev-ratio", 0.2)
    assert ended.status == 0, ended
    assert "a batch of 4 rows" in " ".join(ended.out.split())
    assert "no --output was given" in ended.out
    assert edge(*call, "--config", file).err.strip() == "edge: 1 check failed: lengths"
    assert "Did you mean 'quick'" in assert_refused("check", data, "--preset", "quik")
    checkpoint = data.parent / "out.run" / "checkpoints" / "step-000000005"
    checkpoint.mkdir(parents=True)
    ended = edge(*call, "--dev-ratio", 0.2, "--output", data.parent / "out")
    assert ended.status == 2
    assert "unfinished run (step 5)" in " ".join(ended.out.split())


def test_an_adapter_needs_moments_of_its_own_weights_alone(model: Path) -> None:
    from transformers import AutoConfig

    from edge.train.model.loading import load_pretrained, parameter_count
    from edge.train.model.lora import add_adapter

    settings = AutoConfig.from_pretrained(str(model))
    for targets in (None, ("q", "v")):
        config = TrainConfig(
            "d", "o", model=str(model), method="lora", lora_rank=4, lora_targets=targets
        ).resolved()
        trainable = load_pretrained(str(model))
        add_adapter(trainable, config)
        counted = parameter_count(trainable.model, trained=True)
        assert count_adapter_parameters(settings, 4, targets) == counted > 0


def test_no_check_trains_anyway(
    edge: Callable[..., Any], write_rows: WriteRows, model: Path
) -> None:
    rows = [{**row, "target": "a river " * 8} for row in ROWS]
    data = write_rows("rows.jsonl", rows)
    output = data.parent / "out"
    options = (
        "train", data, "--model", model, "--dev-ratio", 0.2, "--max-target-length", 8,
        "--epochs", 0.3, "--threads", 1, "--output", output,
    )  # fmt: skip
    assert edge(*options).status == 2
    assert not output.exists()
    assert edge(*options, "--no-check").status == 0
    assert (output / "model.safetensors").is_file()


def test_checks_that_cannot_run_are_reported(tmp_path: Path) -> None:
    config = TrainConfig(data=tmp_path / "no.jsonl", output=tmp_path / "o", model=str(tmp_path))
    found = _by_name(preflight(config))
    assert found["data"][0][0] == found["model"][0][0] == "failed"
    assert "no such file" in found["data"][0][1]
    assert "no config.json" in found["model"][0][1]
    assert found["memory"][0][0] == found["round trip"][0][0] == "skipped"
    assert found["output"][0][0] == "ok"


def test_a_model_that_can_not_fit_is_refused_with_the_numbers(
    write_rows: WriteRows, model: Path, tmp_path: Path
) -> None:
    """A configuration alone is enough: 200,000 million weights are never allocated."""
    giant = tmp_path / "giant"
    shutil.copytree(model, giant)
    settings = json.loads((giant / "config.json").read_text())
    settings |= {"d_model": 1 << 15, "d_ff": 1 << 20, "num_layers": 1, "num_decoder_layers": 1}
    (giant / "config.json").write_text(json.dumps(settings))
    data = write_rows("rows.jsonl", ROWS)
    config = TrainConfig(data=data, output=tmp_path / "out", model=str(giant), dev_ratio=0.2)
    found = _by_name(preflight(config))
    status, detail = found["memory"][0]
    assert status == "failed"
    for part in ("parameters", "gradients", "optimizer", "activations", "free on cpu"):
        assert part in detail
    assert found["disk"][0][0] == "failed"


@pytest.mark.parametrize("gate", ["gated-gelu", "relu"])
@pytest.mark.parametrize("shape", [BatchShape(8, 32, 24), BatchShape(2, 200, 60)])
def test_the_estimate_of_activations_is_what_autograd_keeps(
    random_model: ModelFactory, gate: str, shape: BatchShape
) -> None:
    """Within a fifth of the bytes of all tensors that a forward pass saves for backward."""
    from transformers import T5ForConditionalGeneration

    folder = random_model(feed_forward_proj=gate, num_layers=3, d_ff=192, dropout_rate=0.1)
    network = T5ForConditionalGeneration.from_pretrained(str(folder)).train()
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    saved: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    ids = torch.randint(3, 250, (shape.rows, shape.source))
    labels = torch.randint(3, 250, (shape.rows, shape.target))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = network(input_ids=ids, labels=labels).loss
    assert torch.isfinite(loss)
    estimate = 4 * activation_floats(network.config, shape)
    assert estimate == pytest.approx(sum(saved.values()), rel=0.2)
    parameters = count_parameters(network.config)
    assert parameters == sum(p.numel() for p in network.parameters())
    need = estimate_memory(network.config, shape, parameters=parameters)
    assert need.total == 16 * parameters + estimate


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("5\n")
    within = partial(free_memory, proc=tmp_path, cgroups=tmp_path)
    monkeypatch.setattr(memory_estimate, "free_memory", within)
    assert memory_estimate.available_memory("cpu") == 995


def test_a_tokenizer_that_does_not_fit_the_model(
    write_rows: WriteRows, model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    path = broken / "tokenizer.json"
    values = json.loads(path.read_text())
    values["post_processor"] = None  # nothing puts </s> at the end
    path.write_text(json.dumps(values))
    data = write_rows("rows.jsonl", ROWS)
    config = TrainConfig(data=data, output=tmp_path / "out", model=str(broken), dev_ratio=0.2)
    found = _by_name(preflight(config))
    assert found["tokenizer"][0][0] == "failed"
    assert "</s>" in found["tokenizer"][0][1]
    # The runtime puts </s> there by itself, so the two would differ.
    assert found["evaluation parity"][0][0] == "failed"


def _altered(folder: Path, to: Path) -> Path:
    """A copy whose tokenizer lower-cases, as if another one had been put there."""
    shutil.copytree(folder, to)
    path = to / "tokenizer.json"
    values = json.loads(path.read_text())
    values["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(values))
    return to


def test_export_refuses_another_tokenizer_than_that_of_training(
    trained: Path, tmp_path: Path
) -> None:
    from edge.export.publish import ExportOptions, Publisher
    from edge.export.source import SourceModel

    record = json.loads((trained / "training.json").read_text())["text_path"]
    publisher = Publisher(SourceModel.open(trained))
    assert publisher.text_fingerprint.as_record() == record
    asked_for = Publisher(SourceModel.open(trained), ExportOptions(prompt="fix: "))
    assert asked_for.text_fingerprint.prompt_template == "fix: {input}"
    with pytest.raises(ModelError, match="normalizes text differently than in training"):
        Publisher(SourceModel.open(_altered(trained, tmp_path / "model")))
    # A later training on it is warned of a prompt that is another one.
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = TrainConfig(
        data=tmp_path / "data.jsonl", output=tmp_path / "out", model=str(trained), prefix="fix: ",
        dev_ratio=0.2,
    )  # fmt: skip
    status, detail = _by_name(preflight(config))["evaluation parity"][0]
    assert status == "warning"
    assert "'fix: {input}', but was '{input}' in training" in detail


def test_bench_refuses_an_artifact_whose_prompt_was_changed(
    artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    from edge.bench.artifacts.runner import run_bench
    from edge.runtime.rows import read_rows

    folder = tmp_path / "artifact"
    shutil.copytree(artifacts / "onnx-int8", folder)
    path = folder / "edge.json"
    manifest = json.loads(path.read_text())
    assert manifest["text_path"]["tokenizer"]
    path.write_text(json.dumps(manifest | {"prompt_template": "fix: {input}"}))
    rows = read_rows(dataset / "dev.jsonl")[:2]
    with pytest.raises(ArtifactError, match="the prompt is 'fix: {input}', but was"):
        run_bench([folder], rows, runs=30)
