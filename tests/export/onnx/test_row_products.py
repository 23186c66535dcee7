"""Artifacts with a scale per row: answers alone, in batches and with drafts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.export.publish import Publisher
from edge.export.source import SourceModel
from edge.export.target import Target
from edge.runtime import Model, load
from edge.runtime.rows import read_rows


@pytest.fixture(scope="module")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("rows") / "artifact"
    exported = Publisher(SourceModel.open(trained)).publish(Target("onnx", "int8_row"), folder)
    assert exported.manifest.quantization == "int8_row"
    with load(folder) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def texts(dataset: Path) -> list[str]:
    return [row.input for row in read_rows(dataset / "dev.jsonl")]


@pytest.mark.parametrize("batch_size", [4, 16, 60])
def test_a_batch_answers_as_single_texts_do(
    model: Model, texts: list[str], batch_size: int
) -> None:
    alone = [model.generate(text) for text in texts]
    together = model.generate(texts, batch_size=batch_size)
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]
    assert [a.score for a in together] == pytest.approx([a.score for a in alone], abs=1e-4)


def test_drafts_change_no_answer(model: Model, texts: list[str]) -> None:
    for text in texts[:20]:
        drafted = model.generate(text, prompt_lookup_num_tokens=6)
        assert drafted.token_ids == model.generate(text).token_ids


def test_answers_are_those_of_float32(
    model: Model, texts: list[str], trained: Path, tmp_path: Path
) -> None:
    found = model.generate(texts)
    ids, _ = model.encode(texts)
    targets = [[*answer.token_ids, model.tokenizer.eos] for answer in found]
    scores = model.score_tokens(ids, targets)
    publisher = Publisher(SourceModel.open(trained))
    publisher.publish(Target("onnx", "float32"), tmp_path / "float32")
    with load(tmp_path / "float32") as exact:
        expected = exact.generate(texts)
        exact_scores = exact.score_tokens(ids, targets)
    same = sum(a.token_ids == b.token_ids for a, b in zip(found, expected, strict=True))
    assert same >= 0.95 * len(texts)
    error = np.abs(np.concatenate(scores) - np.concatenate(exact_scores)).mean()
    assert error < 0.02


def test_no_matrix_of_the_decoder_is_stored_in_blocks(model: Model) -> None:
    import onnx

    path = model.artifact.path("decoder.onnx")
    graph = onnx.load(str(path), load_external_data=False).graph
    kinds = {node.op_type for node in graph.node}
    assert "MatMulIntegerToFloat" in kinds
    assert "MatMulNBits" not in kinds
