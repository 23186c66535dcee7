"""Publishing: atomic, checked against the source, with the right defaults."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.export.publish import ExportOptions, Publisher, Target, plan_targets
from edge.export.source import SourceModel
from edge.export.tolerance import EXACT, Parity, check_tolerance
from edge.runtime import Artifact, load
from edge.runtime.errors import EdgeError, OutputExistsError, ParityError, UsageError
from samples import FORMATS


def test_a_plan_names_each_artifact_once() -> None:
    names = [target.name for target in plan_targets("all", ("int8", "auto"))]
    assert names == ["torchscript-int8", "onnx-int8", "ctranslate2-int8", "gguf-q8_0"]
    with pytest.raises(UsageError, match="unknown onnx quantization 'int9'.*Did you mean 'int8'"):
        plan_targets("onnx", ("int9",))


def test_an_existing_artifact_stays_until_forced(
    artifacts: Path, trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "artifact"
    shutil.copytree(artifacts / "onnx-float32", output)
    publisher = Publisher(SourceModel.open(trained))
    [target] = plan_targets("onnx", ("int8",))
    with pytest.raises(OutputExistsError, match="--force"):
        publisher.publish(target, output)
    assert Artifact.open(output, verify=True).manifest.quantization == "float32"
    publisher.publish(target, output, force=True)
    assert Artifact.open(output, verify=True).manifest.quantization == "int8"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_an_artifact_outside_of_the_tolerance_is_not_published(
    trained: Path, tmp_path: Path
) -> None:
    publisher = Publisher(SourceModel.open(trained), ExportOptions(mean_error=1e-9))
    for name, advice in (
        ("int8", "Export with a higher-precision --quantize or --no-condition, or raise --max"),
        ("none", "Raise --max-error and --mean-error"),
    ):
        [target] = plan_targets("onnx", (name,))
        with pytest.raises(
            ParityError, match=r"log-probability error is .* \(limit 1e-09\)"
        ) as one:
            publisher.publish(target, tmp_path / "out")
        assert f". {advice}" in str(one.value)
        assert list(tmp_path.iterdir()) == []


def test_errors_name_the_output_not_the_folder_it_is_built_in(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> None:
        raise EdgeError(f"{folder}/model.onnx: ONNX Runtime failed to run it")

    monkeypatch.setattr("edge.export.publish.load_staged", fails)
    publisher = Publisher(SourceModel.open(trained))
    with pytest.raises(EdgeError) as caught:
        publisher.publish(Target("onnx", "float32"), tmp_path / "out")
    assert str(caught.value) == f"{tmp_path}/out/model.onnx: ONNX Runtime failed to run it"
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_fails_with_4_bits_gets_the_next_higher_precision(
    trained: Path, tmp_path: Path
) -> None:
    source = SourceModel.open(trained)
    [target] = plan_targets("onnx", ("int4",))
    publisher = Publisher(source)
    errors = {
        name: publisher.publish(Target("onnx", name), tmp_path / name).parity.mean_error
        for name in ("int4", "int8")
    }
    assert errors["int8"] < errors["int4"]
    between = (errors["int8"] + errors["int4"]) / 2
    publisher.options = ExportOptions(mean_error=between)
    exported = publisher.publish(target, tmp_path / "out")
    made = exported.manifest.quantization
    assert made in ("int4_mixed", "int8")
    assert exported.parity.mean_error <= between
    assert Artifact.open(tmp_path / "out", verify=True).manifest.quantization == made


def test_the_tolerance_refuses_each_kind_of_difference() -> None:
    fine = Parity(
        inputs=15,
        tokens=200,
        greedy_identical=15,
        largest_gap=0,
        lookup_identical=None,
        lookup_gap=None,
        max_error=1e-5,
        mean_error=1e-6,
    )
    check_tolerance(fine, EXACT, "x")
    check_tolerance(dataclasses.replace(fine, greedy_identical=14, largest_gap=1e-3), EXACT, "x")
    nan = float("nan")
    for changes in (
        {"greedy_identical": 14, "largest_gap": 0.1},
        {"lookup_identical": 14, "lookup_gap": 0.1},
        {"max_error": 2e-3},
        {"max_error": nan, "mean_error": nan},
    ):
        with pytest.raises(ParityError):
            check_tolerance(dataclasses.replace(fine, **changes), EXACT, "x")


def test_a_wrong_scale_of_the_logits_is_caught(
    random_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy answers are the same: it shows in log-probabilities only."""
    source = SourceModel.open(random_model(tied=False))
    right = source.architecture
    publisher = Publisher(source)
    publisher.check._log_probs  # noqa: B018 - the reference's side, before the fault
    source.architecture = dataclasses.replace(right, scale_decoder_outputs=True)
    with pytest.raises(ParityError, match="log-probability error"):
        publisher.publish(plan_targets("onnx", ("none",))[0], tmp_path / "out")


def test_defaults_come_from_the_models_folder(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained, folder)
    generation = {"num_beams": 3, "max_new_tokens": 17, "transformers_version": "5", "top_h": 1}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    record = json.loads((folder / "training.json").read_text())
    record["prompt_template"] = record["text_path"]["prompt_template"] = "rewrite: {input}"
    (folder / "training.json").write_text(json.dumps(record))
    publisher = Publisher(SourceModel.open(folder))
    for format_name, beams in (("onnx", 3), ("gguf", 1)):
        publisher.publish(plan_targets(format_name, ("auto",))[0], tmp_path / format_name)
        with load(tmp_path / format_name) as model:
            assert model.defaults.num_beams == beams
            assert model.defaults.max_new_tokens == 17
            assert model.prompt.template == "rewrite: {input}"
            assert model.artifact.manifest.limits.max_input_tokens == 64
            ids, _ = model.encode(["x"])
            assert ids == model.tokenizer.encode(["rewrite: x"])


def test_options_win_over_the_folder(trained: Path, tmp_path: Path) -> None:
    options = ExportOptions(
        prompt="[{task}] {input}", max_input_tokens=33, generation={"max_new_tokens": 9}
    )
    publisher = Publisher(SourceModel.open(trained), options)
    publisher.publish(plan_targets("onnx", ("int8",))[0], tmp_path / "out")
    with load(tmp_path / "out") as model:
        assert model.defaults.max_new_tokens == 9
        assert model.artifact.manifest.limits.max_input_tokens == 33
        with pytest.raises(UsageError, match="needs the field 'task'"):
            model.generate("x")
        assert model.generate("x", fields={"task": "linux"}).finish_reason


_FULL = """
import resource, sys
from edge.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
main(["export", sys.argv[1], "--format", sys.argv[2], "--output", sys.argv[3], "--force"])
"""


@pytest.mark.parametrize(
    "format_name",
    ["onnx", *(pytest.param(n, marks=pytest.mark.slow) for n in FORMATS if n != "onnx")],
)
def test_a_full_disk_keeps_the_old_artifact(
    format_name: str, artifacts: Path, trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "artifact"
    shutil.copytree(artifacts / "onnx-int8", output)
    ended = subprocess.run(
        [sys.executable, "-c", _FULL, str(trained), format_name, str(output)],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    assert "unexpected" not in ended.stderr
    assert Artifact.open(output, verify=True)
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_the_model_card_has_the_hubs_metadata(artifacts: Path) -> None:
    import yaml

    card = (artifacts / "onnx-int8" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["pipeline_tag"] == "text2text-generation"
    assert metadata["base_model"] == "tiny"
    assert "edge.runtime" in body


def test_of_two_exports_to_one_new_folder_one_is_refused(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "edge.cli", "export", str(trained), "-f", "ctranslate2"]
    exports = [
        subprocess.Popen(
            [*command, "-q", quantization, "-o", str(output)], stderr=subprocess.PIPE, text=True
        )
        for quantization in ("none", "int8")
    ]
    messages = [process.communicate()[1] for process in exports]
    assert sorted(process.returncode for process in exports) == [0, 2], messages
    [refused] = [text for text in messages if "--force" in text]
    assert f"{output} already exists" in refused
    assert len(refused.splitlines()) == 1
    published = "float32" if exports[0].returncode == 0 else "int8"
    assert Artifact.open(output, verify=True).manifest.quantization == published
    assert list(tmp_path.iterdir()) == [output]
