"""Generation settings of a model folder: the artifact answers as transformers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.export.exported import Exported
from edge.export.publish import Publisher, Target
from edge.export.source import SourceModel
from edge.runtime import Text2TextPipeline, load
from edge.runtime.errors import ModelError
from samples import FORMATS, LETTER_PIECES, save_letter_model

TEXTS = ("the old bridge", "who? no, when!", "abc", "a longer text with many letters in it")
END = LETTER_PIECES.index("T")


def model_with(folder: Path, *, config: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A random model with generation settings in their file, or with `config` in config.json."""
    save_letter_model(folder, tied=False, scaled=False, vocab_size=len(LETTER_PIECES))
    path = folder / "generation_config.json"
    if config is None:
        ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
        path.write_text(json.dumps(ids | settings), encoding="utf-8")
    else:
        path.unlink()
        old = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(old | config), encoding="utf-8")
    return folder


def answers_of_transformers(folder: Path) -> list[str]:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for text in TEXTS:
        with torch.inference_mode():
            ids = model.generate(**tokenizer(text, return_tensors="pt"))
        found.append(tokenizer.decode(ids[0], skip_special_tokens=True))
    return found


def publish(folder: Path, output: Path, name: str = "onnx") -> Exported:
    quantization = {"gguf": "f32"}.get(name, "float32")
    return Publisher(SourceModel.open(folder)).publish(Target(name, quantization), output)


def answers_of_artifact(folder: Path) -> list[str]:
    with load(folder, trust_code=True) as model:
        return [answer.text for answer in model.generate(list(TEXTS))]


LEGACY = {
    "num_beams": 3,
    "max_length": 24,
    "early_stopping": True,
    "length_penalty": 2.0,
    "no_repeat_ngram_size": 3,
}


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 100},
        {"max_length": 30, "max_new_tokens": 12},
        {"min_length": 20, "max_length": 40},
        {"min_new_tokens": 9, "max_new_tokens": 20},
        {"num_beams": 4, "early_stopping": True, "max_length": 20},
        {"num_beams": 3, "length_penalty": 0.2, "max_length": 20},
        {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "max_length": 30},
        {"temperature": 0.0, "top_p": 0.3, "max_length": 30},  # without do_sample: no effect
        {"config": LEGACY},
        {"eos_token_id": [END, 1], "max_length": 60},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_an_artifact_answers_as_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model", **settings)
    expected = answers_of_transformers(folder)
    exported = publish(folder, tmp_path / "artifact")
    assert answers_of_artifact(exported.folder) == expected
    assert exported.warnings == ()
    assert len(set(expected)) > 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"repetition_penalty": 1.3}])
def test_any_end_token_ends_an_answer(
    name: str, options: dict[str, Any], tmp_path: Path, ended_model: Path
) -> None:
    if name == "gguf" and "num_beams" in options:
        pytest.skip("gguf has no beams")
    exported = publish(ended_model, tmp_path / "artifact", name)
    assert exported.manifest.architecture.end_token_ids == (1, END)
    source = SourceModel.open(ended_model)
    from edge.export.reference import TorchReference
    from edge.runtime.options import GenerationOptions

    with load(exported.folder, trust_code=True) as model:
        found = [model.generate(text, **options) for text in TEXTS]
        reference = TorchReference(source, pieces=source.pieces)
        chosen = GenerationOptions(max_new_tokens=60, **options)
        for text, answer in zip(TEXTS, found, strict=True):
            [[expected]] = reference.generate(model.tokenizer.encode([text]), chosen)
            assert answer.token_ids == expected.token_ids
            assert answer.finish_reason == expected.finish_reason
            assert (*answer.token_ids, *answer.end_token_ids) == expected.all_token_ids
            assert answer.score == pytest.approx(expected.score, abs=2e-3)
        if not options:
            assert [answer.text for answer in found] == answers_of_transformers(ended_model)
        if options != {"num_beams": 3}:
            with model.stream(TEXTS[0], **options) as stream:
                assert "".join(stream) == found[0].text
        drafted = model.generate(TEXTS[0], prompt_lookup_num_tokens=8)
        assert drafted.text == model.generate(TEXTS[0]).text
        assert drafted.end_token_ids == model.generate(TEXTS[0]).end_token_ids
        if not options:
            pipe = Text2TextPipeline("text2text-generation", model, num_beams=1, max_new_tokens=60)
            tensors = [pipe(text, return_tensors=True)[0]["generated_token_ids"] for text in TEXTS]
            assert [tuple(ids[1:]) for ids in tensors] == [
                (*answer.token_ids, *answer.end_token_ids) for answer in found
            ]
            assert END in [ids[-1] for ids in tensors]
    assert any(answer.text.endswith("T") for answer in found) or options


@pytest.fixture(scope="module")
def ended_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ended") / "model"
    return model_with(folder, eos_token_id=[1, END], max_length=61)


def test_settings_that_engines_lack_are_named_and_never_fail_parity(tmp_path: Path) -> None:
    folder = model_with(
        tmp_path / "model",
        forced_bos_token_id=7,
        bad_words_ids=[[5], [9, 8]],
        encoder_no_repeat_ngram_size=2,
        diversity_penalty=0.0,
        num_beams=2,
        min_p=0.1,
        max_length=30,
    )
    [warning] = publish(folder, tmp_path / "onnx").warnings
    for name in ("forced_bos_token_id 7", "bad_words_ids", "encoder_no_repeat_ngram_size 2"):
        assert name in warning
    assert "diversity_penalty" not in warning
    assert "min_p" not in warning
    beams = publish(folder, tmp_path / "gguf", "gguf").warnings[1]
    assert beams == "gguf has no beam search: num_beams 2 is left out, and answers are greedy"


def test_a_length_that_no_file_sets_is_noted(tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model")
    [note] = publish(folder, tmp_path / "a").warnings
    assert "no length of answers is set. They end after 64 tokens, in transformers after 20" in note
    assert len(answers_of_transformers(folder)[0]) <= 20
    (folder / "training.json").write_text('{"max_target_length": 64}', encoding="utf-8")
    assert publish(folder, tmp_path / "b").warnings == ()


@pytest.mark.parametrize("value", [None, []])
def test_an_end_that_transformers_has_not_is_noted(value: object, tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model", max_length=30)
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"eos_token_id": value}
    path.write_text(json.dumps(settings), encoding="utf-8")
    exported = publish(folder, tmp_path / "a")
    [note] = exported.warnings
    shown = "null" if value is None else "[]"
    assert f"generation_config.json: eos_token_id is {shown}, for which transformers never" in note
    assert exported.manifest.architecture.eos_token_id == 1


def test_a_long_default_raises_the_limit(tmp_path: Path) -> None:
    manifest = publish(model_with(tmp_path / "model", max_length=900), tmp_path / "onnx").manifest
    assert manifest.generation["max_new_tokens"] == manifest.limits.max_new_tokens == 899


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"max_new_tokens": "40"}, "max_new_tokens must be a whole number from 1 to 65536"),
        ({"max_length": 1e9}, "max_length must be a whole number"),
        ({"num_beams": 4.5}, "num_beams must be a whole number"),
        ({"early_stopping": "yes"}, "early_stopping must be true or false"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a token id"),
        ({"eos_token_id": [1, 5000]}, "eos_token_id 5000 is not an id below"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a number"),
    ],
)
def test_a_bad_setting_is_one_sentence(
    settings: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    folder = model_with(tmp_path / "model", **settings)
    with pytest.raises(ModelError, match=problem) as caught:
        SourceModel.open(folder)
    assert "generation_config.json" in str(caught.value)
