"""T5 with a tokenizer of byte pairs, as CodeT5's: `vocab.json` and `merges.txt`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.export.publish import Publisher, Target
from edge.export.source import SourceModel
from edge.runtime import load
from edge.runtime.errors import ModelError
from edge.runtime.text.tokenization import Tokenizer
from edge.train import TrainConfig, train
from edge.train.model.loading import load_tokenizer
from samples import FORMATS, save_letter_model

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
CODE = (
    "for name in names: print(name)",
    "def main(path, *, force=False):\n\treturn {'path': path}\n",
    "if (a[i] < b) { a[i] ^= ~b; }",
    "SELECT city FROM towns WHERE name = 'São Paulo'",
)
TEXTS = (*CODE, "", "  two  spaces ", "東京 🙂")


def save_byte_pair_model(folder: Path, **settings: str) -> Path:
    """A random T5 with the files of CodeT5's tokenizer."""
    from tokenizers import ByteLevelBPETokenizer

    save_letter_model(folder, vocab_size=384, eos_token_id=2, feed_forward_proj="relu")
    (folder / "tokenizer.json").unlink()
    pairs = ByteLevelBPETokenizer()
    pairs.train_from_iterator(CODE, vocab_size=340, special_tokens=SPECIAL)
    pairs.save_model(str(folder))
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>"}
    tokens = {f"{name}_token": token for name, token in (names | {"pad": "<pad>"}).items()}
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**settings, **tokens}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("settings", [{"tokenizer_class": "RobertaTokenizer"}, {}])
def test_the_runtime_tokenizes_as_transformers(settings: dict[str, str], tmp_path: Path) -> None:
    from transformers import RobertaTokenizer

    folder = save_byte_pair_model(tmp_path / "model", **settings)
    expected = RobertaTokenizer.from_pretrained(folder)(list(TEXTS))["input_ids"]
    assert [ids[0] for ids in expected] == [1] * len(TEXTS)
    assert load_tokenizer(str(folder))(list(TEXTS))["input_ids"] == expected
    (tmp_path / "written").mkdir()
    SourceModel.open(folder).write_tokenizer(tmp_path / "written")
    tokenizer = Tokenizer(tmp_path / "written" / "tokenizer.json", eos=2)
    assert tokenizer.encode(TEXTS) == expected
    assert tokenizer.decode(expected) == list(TEXTS)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_answers_as_transformers(name: str, tmp_path: Path) -> None:
    """The parity check compares ids, answers and log-probabilities."""
    publisher = Publisher(SourceModel.open(save_byte_pair_model(tmp_path / "model")))
    quantization = {"gguf": "f32"}.get(name, "float32")
    exported = publisher.publish(Target(name, quantization), tmp_path / "out")
    assert exported.parity.greedy_identical == exported.parity.inputs
    with load(exported.folder, trust_code=True) as model:
        answer = model.generate(CODE[1], max_new_tokens=6, min_new_tokens=6)
        assert "".join(model.stream(CODE[1], max_new_tokens=6, min_new_tokens=6)) == answer.text


def test_quantized_with_calibration_rows(tmp_path: Path) -> None:
    publisher = Publisher(SourceModel.open(save_byte_pair_model(tmp_path / "model")))
    assert all(ids[0] == 1 for ids in publisher.calibration.inputs)
    exported = publisher.publish(Target("onnx", "int8"), tmp_path / "out")
    assert exported.parity.mean_error < 0.05


def test_a_trained_model_keeps_its_byte_pairs(tmp_path: Path) -> None:
    folder = save_byte_pair_model(tmp_path / "model")
    data = tmp_path / "data.jsonl"
    rows = [{"input": f"{text} {n}", "target": text} for n in range(6) for text in CODE]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    output = tmp_path / "trained"
    train(TrainConfig(data=data, output=output, model=str(folder), epochs=1, dev_ratio=0.2))
    assert load_tokenizer(str(output))(CODE[1])["input_ids"][0] == 1
    exported = Publisher(SourceModel.open(output)).publish(
        Target("onnx", "float32"), tmp_path / "out"
    )
    with load(exported.folder) as model:
        assert model.tokenizer.decode(model.tokenizer.encode(CODE)) == list(CODE)


def test_merges_without_a_vocabulary_are_refused(tmp_path: Path) -> None:
    folder = save_byte_pair_model(tmp_path / "model")
    (folder / "vocab.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json and no spiece\.model"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "vocab.json").write_text("{"),
        lambda folder: (folder / "merges.txt").write_text("a b c d\n"),
        lambda folder: (folder / "vocab.json").write_text("[]"),
    ],
)
def test_damaged_files_are_one_line(damage: Callable[[Path], object], tmp_path: Path) -> None:
    folder = save_byte_pair_model(tmp_path / "model")
    damage(folder)
    with pytest.raises(ModelError) as caught:
        load_tokenizer(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
