"""Models with added characters in all formats: every lost text is written, also as a stream."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge.export.api import publish_all
from edge.export.publish import Publisher, plan_targets
from edge.export.source import SourceModel
from edge.runtime.artifact.manifest import read_manifest
from edge.runtime.model import load
from edge.train.model.loading import load_pretrained
from edge.train.vocabulary import resolve
from samples import FORMATS

TEXTS = ("{\n\t`a`:     <b\\c>\n}", "  ~x^2 ", "привет\n\nмир", "plain words", "x² …\n")


@pytest.fixture(scope="module")
def source(random_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a separate head whose vocabulary is extended, by more ids than are free."""
    folder = random_model(tied=False)
    loaded = load_pretrained(str(folder))
    embedding = loaded.model.shared.weight.detach().clone()
    head = loaded.model.lm_head.weight.detach().clone()
    more = [chr(0x4E00 + n) for n in range(160)]
    vocabulary = resolve(loaded.tokenizer, [*TEXTS, *more], "extend")
    assert vocabulary.extension is not None
    loaded.extend_by(vocabulary.tokenizer, vocabulary.added, vocabulary.extension.related)
    model: Any = loaded.model
    size = model.config.vocab_size
    assert size % 64 == 0
    assert size > max(vocabulary.added.values()) > 260
    for weight, before in ((model.shared.weight, embedding), (model.lm_head.weight, head)):
        assert weight.shape[0] == size
        for token in range(len(before)):
            if token not in vocabulary.extension.related:
                assert torch.equal(weight[token], before[token])
        for token, related in vocabulary.extension.related.items():
            if max(related) < min(vocabulary.added.values()):
                assert torch.allclose(weight[token], weight[related].mean(dim=0))
    output = tmp_path_factory.mktemp("extended") / "model"
    model.save_pretrained(output)
    loaded.tokenizer.save_pretrained(output)
    again = load_pretrained(str(output))
    assert again.added_characters == vocabulary.added
    assert not torch.equal(again.model.lm_head.weight, again.model.shared.weight)
    return output


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("formats")
    publish_all(Publisher(SourceModel.open(source)), plan_targets("all", ("none",)), output)
    return output


@pytest.mark.parametrize("name", FORMATS)
def test_each_engine_reads_and_writes_added_characters(
    name: str, exported: Path, source: Path, edge: Callable[..., Any]
) -> None:
    from transformers import AutoTokenizer

    folder = next(exported.glob(f"{name}-*"))
    reference = AutoTokenizer.from_pretrained(source)
    with load(folder, trust_code=True) as model:
        tokenizer = model.tokenizer
        ids = tokenizer.encode(TEXTS)
        assert ids == reference(list(TEXTS))["input_ids"]
        assert tokenizer.decode(ids) == list(TEXTS)
        # The engine scores each target finitely: its vocabulary holds the new pieces.
        for scores, row in zip(model.score(TEXTS, TEXTS), ids, strict=True):
            assert len(scores) == len(row)
            assert (scores > -100).all()
        answers = model.generate(TEXTS, max_new_tokens=24)
        written = "".join(answer.text for answer in answers)
        added = read_manifest(folder).tokenizer.added_characters
        assert added
        for text in TEXTS:
            # Not the batch's answer: `…` starts with the row of the period, and rounding decides.
            answer = model.generate(text, max_new_tokens=24)
            with model.stream(text, max_new_tokens=24) as stream:
                assert "".join(stream) == answer.text
        assert any(character in written for character in added)
    shown = edge("info", folder).out
    assert f"added {len(added)} characters:" in " ".join(shown.split())
    assert "\\n" in shown


def test_vocabularies_of_llama_cpp_and_ctranslate2_hold_the_pieces(exported: Path) -> None:
    from gguf import GGUFReader

    added = json.loads((next(exported.glob("gguf-*")) / "edge.json").read_text())["tokenizer"][
        "added_characters"
    ]
    reader = GGUFReader(next(next(exported.glob("gguf-*")).glob("*.gguf")))
    field = reader.fields["tokenizer.ggml.tokens"]
    pieces = [bytes(field.parts[index]).decode() for index in field.data]
    for character, token in added.items():
        assert pieces[token] == character
    folder = next(exported.glob("ctranslate2-*"))
    names = json.loads((folder / "shared_vocabulary.json").read_text())
    assert len(names) == len(set(names)) == len(pieces)
    assert names[added["п"]] == "п"


def test_a_manifest_with_impossible_characters_is_refused(
    exported: Path, tmp_path: Path, assert_refused: Callable[..., str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(next(exported.glob("onnx-*")), folder)
    manifest = json.loads((folder / "edge.json").read_text())
    manifest["tokenizer"]["added_characters"]["п"] = 1 << 20
    (folder / "edge.json").write_text(json.dumps(manifest))
    assert "added_characters" in assert_refused("info", folder)
