"""`edge.runtime.pipeline` returns what the pipelines of transformers 4.57 return."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.export.api import export
from edge.runtime import pipeline
from edge.runtime.rows import read_rows

_ROWS, _FEW = 200, 16
_TASKS = {
    "summarization": {
        "prefix": "well, ",
        "num_beams": 3,
        "length_penalty": 2.0,
        "min_length": 12,
        "no_repeat_ngram_size": 3,
        "early_stopping": True,
    },
    "translation_en_to_fr": {"prefix": "I mean ", "num_beams": 1},
}


@pytest.fixture(scope="module")
def model(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model with parameters of tasks, in a form that transformers 4 can read."""
    folder = tmp_path_factory.mktemp("pipeline") / "model"
    shutil.copytree(shared / "models" / "disfl-tiny", folder, copy_function=shutil.copyfile)
    for name, changes in (
        ("config.json", {"task_specific_params": _TASKS}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | changes))
    return folder


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _unpadded(value: Any) -> Any:
    """transformers pads the token ids of a batch to the same length; ours are not padded.

    Beam search pads with the end token, where the id of the padding token is 0.
    """
    if isinstance(value, list):
        return [_unpadded(one) for one in value]
    [(name, ids)] = value.items()
    while ids[-1] == 0 or ids[-2:] == [1, 1]:
        ids = ids[:-1]
    return {name: ids}


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("text2text-generation", {"batch_size": 32}),
    ("text2text-generation", {"num_beams": 1, "batch_size": 32}),
    ("text2text-generation", {}),
    ("text2text-generation", {"max_new_tokens": 8, "num_beams": 2, "num_return_sequences": 2}),
    ("text2text-generation", {"truncation": True, "repetition_penalty": 1.3, "num_beams": 1}),
    ("text2text-generation", {"return_tensors": True, "batch_size": 8}),
    ("summarization", {}),
    ("summarization", {"clean_up_tokenization_spaces": True, "num_beams": 1}),
    ("translation_en_to_fr", {"min_length": 9, "length_penalty": 0.5, "num_beams": 4}),
    ("translation_en_to_fr", {}),
]


def test_pipelines_return_what_those_of_transformers_return(
    baselines: Callable[..., Any], model: Path, shared: Path, tmp_path: Path
) -> None:
    """200 rows of real data; fewer for further tasks and arguments that change an answer."""
    rows = read_rows(shared / "data" / "disfl_qa" / "dev.jsonl")[:_ROWS]
    texts = [row.input for row in rows]
    calls = [
        (task, arguments, texts[: _ROWS if n < 2 else _FEW])
        for n, (task, arguments) in enumerate(CALLS)
    ]
    (tmp_path / "calls.json").write_text(json.dumps({"model": str(model), "calls": calls}))
    expected = baselines("run_pipeline.py", tmp_path / "calls.json")
    artifact = tmp_path / "artifact"
    export(model, artifact, "onnx", "none")
    for (task, arguments, texts), theirs in zip(calls, expected, strict=True):
        with pipeline(task, artifact, device=-1) as ours:
            found = _plain(ours(texts, **arguments))
        assert len(found) == len(texts)
        if "return_tensors" in arguments:
            theirs = _unpadded(theirs)
        assert found == theirs, (task, arguments)
    assert expected[0] != expected[1]  # beams matter
