"""`edge.export.export`: several formats in one call, clear refusals, a light import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.export import SourceModel, export
from edge.runtime import Artifact
from edge.runtime.errors import ModelError, OutputExistsError, UsageError


def test_each_format_gets_its_folder(random_model: Callable[..., Path], tmp_path: Path) -> None:
    started: list[str] = []
    exported = export(
        random_model(),
        tmp_path / "out",
        ["onnx", "ctranslate2", "onnx"],
        "none",
        prompt="rewrite: ",
        on_start=lambda target: started.append(target.name),
    )
    assert started == ["onnx-float32", "ctranslate2-float32"]
    assert [one.folder for one in exported] == [tmp_path / "out" / name for name in started]
    for one in exported:
        manifest = Artifact.open(one.folder, verify=True).manifest
        assert manifest == one.manifest
        assert manifest.prompt_template == "rewrite: {input}"


def test_one_artifact_is_the_output_itself(
    random_model: Callable[..., Path], tmp_path: Path
) -> None:
    source = SourceModel.open(random_model())
    [one] = export(source, tmp_path / "out", "onnx", "none")
    assert one.folder == tmp_path / "out"
    with pytest.raises(OutputExistsError):
        export(source, tmp_path / "out", "onnx", "none")
    export(source, tmp_path / "out", "onnx", "none", force=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": "onxx"}, "unknown format 'onxx'. Did you mean 'onnx'"),
        ({"formats": []}, "no format given"),
        ({"formats": "onnx", "quantize": "int9"}, "Did you mean 'int8'"),
        ({"formats": "onnx", "layout": "hug"}, "unknown layout 'hug'. Did you mean 'hub'"),
        ({"formats": ["onnx", "gguf"], "layout": "hub"}, "--format onnx only, not for gguf"),
        ({"formats": "gguf", "shortlist": "rows.jsonl"}, "--shortlist is for --format onnx"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], message: str, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        export(random_model(), tmp_path / "out", **arguments)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feed_forward_proj": "gelu"}, "llama.cpp supports T5 with relu or gated gelu_new only"),
        ({"num_heads": 1, "d_kv": 16}, "CTranslate2 can't run one head of another width"),
    ],
)
def test_a_shape_that_one_format_lacks_is_refused_before_any_work(
    changes: dict[str, Any], message: str, random_model: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        export(random_model(**changes), tmp_path / "out", "all", "none")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_importing_the_package_loads_no_library() -> None:
    code = (
        "import sys, edge.export\n"
        "assert 'export' in dir(edge.export)\n"
        "print([name for name in ('torch', 'transformers', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
