"""transformers.js in Node.js loads the hub layout and gives the same answers as torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.export.source import SourceModel
from edge.runtime.text.tokenization import Tokenizer
from interop_samples import SHAPES, TEXTS
from node import installed

SCRIPT = Path(__file__).with_name("run_transformers_js.mjs")
PACKAGE, VERSION = "@huggingface/transformers", "4.3.1"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("subfolder", ["", "onnx"])
def test_transformers_js_generates_what_torch_generates(
    subfolder: str,
    shape: str,
    random_model: Callable[..., Path],
    export_hub: Callable[..., Path],
    tmp_path: Path,
) -> None:
    import torch

    modules = installed(PACKAGE, VERSION)
    model = random_model(**SHAPES[shape])
    hub = export_hub(model, "none")
    if subfolder:
        (hub / subfolder).mkdir()
        for path in hub.glob("*.onnx"):
            path.rename(hub / subfolder / path.name)
    results = run(modules, hub, subfolder, tmp_path, {"max_new_tokens": 16})
    source = SourceModel.open(model)
    tokenizer = Tokenizer(hub / "tokenizer.json", eos=source.architecture.eos_token_id)
    assert results["ids"] == tokenizer.encode(TEXTS)
    with torch.inference_mode():
        for ids, tokens in zip(results["ids"], results["tokens"], strict=True):
            expected = source.torch_model.generate(
                torch.tensor([ids]),
                max_new_tokens=16,
                num_beams=1,
                do_sample=False,
                use_cache=False,
            )
            assert tokens == expected[0].tolist()
    assert len(set(map(tuple, results["tokens"]))) == len(TEXTS)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_trained_model_in_transformers_js(
    quantization: str, trained: Path, export_hub: Callable[..., Path], tmp_path: Path
) -> None:
    """As `edge train` leaves it; the text, too, is the runtime's."""
    from edge.export.publish import Publisher, Target
    from edge.runtime import load

    modules = installed(PACKAGE, VERSION)
    hub = export_hub(trained, quantization)
    source = SourceModel.open(trained)
    Publisher(source).publish(Target("onnx", quantization), tmp_path / "artifact")
    texts = ("when was the uh the old bridge built", "who wrote no sorry who painted the portrait")
    results = run(modules, hub, "", tmp_path, {"max_new_tokens": 40}, texts)
    with load(tmp_path / "artifact") as model:
        expected = model.generate(list(texts), batch_size=1, max_new_tokens=40)
    assert [text.strip() for text in results["texts"]] == [one.text.strip() for one in expected]


def run(
    modules: Path,
    hub: Path,
    subfolder: str,
    scratch: Path,
    options: dict[str, Any],
    texts: tuple[str, ...] = TEXTS,
) -> dict[str, Any]:
    calls = {"hub": str(hub), "subfolder": subfolder, "texts": texts, "options": options}
    (scratch / "calls.json").write_text(json.dumps(calls))
    assert shutil.which("node")
    done = subprocess.run(
        ["node", str(SCRIPT), str(scratch / "calls.json")],
        env={**os.environ, "NODE_PATH": str(modules)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results
