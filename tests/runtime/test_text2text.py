"""`edge.runtime.pipeline`: results, parameters of tasks, and what is refused.

tests/interop/test_pipeline.py compares it with transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.export.api import export
from edge.runtime import Text2TextPipeline, load, pipeline
from edge.runtime.artifact.manifest import read_manifest
from edge.runtime.errors import ArtifactError, EdgeError, InputTooLongError, ModelError, UsageError

TEXTS = ["what is the bridge in Berlin", "who made a river", "list all houses by Anna"]
TASKS = {
    "summarization": {"prefix": "what is ", "max_length": 9, "min_length": 4, "num_beams": 2},
    "translation_en_to_fr": {"prefix": "who made "},
}


@pytest.fixture(scope="module")
def model_folder(random_model: Callable[..., Path]) -> Path:
    return random_model(task_specific_params=TASKS)


@pytest.fixture(scope="module")
def artifact(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline") / "artifact"
    export(model_folder, folder, "onnx", "none", max_input_tokens=32, max_error=1.0)
    return folder


@pytest.fixture(scope="module")
def pipe(artifact: Path) -> Iterator[Text2TextPipeline]:
    with pipeline("text2text-generation", artifact, max_new_tokens=8) as pipe:
        yield pipe


def test_results_have_the_form_of_transformers(pipe: Text2TextPipeline) -> None:
    one = pipe(TEXTS[0])
    assert list(one[0]) == ["generated_text"]
    expected = pipe.model.generate(TEXTS, num_beams=4, max_new_tokens=8)
    assert pipe(TEXTS) == [{"generated_text": answer.text} for answer in expected]
    assert pipe(TEXTS[:1]) == one
    assert pipe([]) == []
    several = pipe(TEXTS, num_return_sequences=2)
    assert [len(group) for group in several] == [2, 2, 2]
    assert [group[0] for group in several] == pipe(TEXTS)
    assert list(pipe(text for text in TEXTS)) == [[answer] for answer in pipe(TEXTS)]
    assert list(pipe(tuple(TEXTS), batch_size=2)) == [[answer] for answer in pipe(TEXTS)]
    assert pipe({"text": TEXTS[0]}) == pipe({"input": TEXTS[0]}) == one
    [ids] = [answer["generated_token_ids"] for answer in pipe(TEXTS[0], return_tensors=True)]
    assert ids.dtype == np.int64
    assert ids[0] == 0
    assert tuple(ids[1:][ids[1:] != 1]) == expected[0].token_ids


def test_a_generator_is_read_in_batches(pipe: Text2TextPipeline) -> None:
    read = []

    def texts() -> Iterator[str]:
        for text in TEXTS:
            read.append(text)
            yield text

    answers = pipe(texts(), batch_size=2)
    assert read == []
    next(answers)
    assert len(read) == 2


def test_parameters_of_a_task_are_kept(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    assert manifest.task_specific_params == {
        "summarization": {
            "prefix": "what is ",
            "max_new_tokens": 8,
            "min_new_tokens": 3,
            "num_beams": 2,
        },
        "translation_en_to_fr": {"prefix": "who made "},
    }
    with load(artifact) as model:
        summarize = pipeline("summarization", model)
        options = {"num_beams": 2, "max_new_tokens": 8, "min_new_tokens": 3}
        answer = model.generate("what is a river", **options)
        assert summarize("a river") == [{"summary_text": answer.text}]
        answer = model.generate("what is a river", num_beams=2, max_new_tokens=2)
        assert summarize("a river", max_length=3) == [{"summary_text": answer.text}]
        [french] = pipeline("translation_en_to_fr", model, max_length=9)("a river")
        answer = model.generate("who made a river", num_beams=4, max_new_tokens=8)
        assert french == {"translation_text": answer.text}


def test_the_artifacts_own_prompt_takes_the_place_of_a_prefix(
    model_folder: Path, tmp_path: Path
) -> None:
    export(model_folder, tmp_path / "a", "onnx", "none", prompt="[{task}] {input}", max_error=1.0)
    with pipeline("summarization", tmp_path / "a") as pipe:
        assert pipe.prefix == ""
        answer = pipe({"input": "a river", "task": "old"}, num_beams=1)
        expected = pipe.model.generate(
            "a river", fields={"task": "old"}, max_new_tokens=8, min_new_tokens=3
        )
        assert answer == [{"summary_text": expected.text}]
        with pytest.raises(UsageError, match="needs the field 'task'"):
            pipe("a river")


def test_long_inputs_are_refused_or_truncated(pipe: Text2TextPipeline) -> None:
    long = " ".join(TEXTS * 9)
    with pytest.raises(InputTooLongError):
        pipe(long)
    expected = pipe.model.generate(long, on_long="truncate", num_beams=4, max_new_tokens=8)
    assert pipe(long, truncation=True) == [{"generated_text": expected.text}]
    assert pipe(long, truncation="longest_first") == [{"generated_text": expected.text}]


def test_spaces_are_cleaned_up(pipe: Text2TextPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge.runtime.text2text import _clean_up

    assert _clean_up("it 's a test , is n't it ?") == "it's a test, isn't it?"
    before, after = (pipe(TEXTS, clean_up_tokenization_spaces=flag) for flag in (False, True))
    assert [_clean_up(one["generated_text"]) for one in before] == [
        one["generated_text"] for one in after
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beam": 2}, "Did you mean 'num_beams'"),
        ({"bad_words_ids": [[3]]}, "unknown generation option 'bad_words_ids'"),
        ({"max_length": 9, "max_new_tokens": 9}, "two names of one limit"),
        ({"max_length": "9"}, "max_length must be a whole number"),
        ({"max_new_tokens": 1 << 15}, "this artifact's limit is"),
        ({"truncation": "only_second"}, "truncation must be one of"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"return_tensors": True, "return_text": True}, "must differ"),
        ({"return_text": False, "return_tensors": False}, "must differ"),
        ({"return_tensors": "np"}, "return_tensors must be true or false"),
        ({"src_lang": "en"}, "translation_xx_to_yy"),
        ({"stop_sequence": "."}, "stop_strings"),
        ({"generation_config": {}}, "give its fields"),
        ({"num_workers": 2}, "num_workers is not supported"),
        ({"do_sample": True}, "add num_beams=1"),
    ],
)
def test_arguments_that_are_refused(
    pipe: Text2TextPipeline, artifact: Path, arguments: dict[str, Any], message: str
) -> None:
    """In a call, and where the pipeline is made."""
    for make in (lambda: pipe(TEXTS[0], **arguments), lambda: _make(artifact, arguments)):
        with pytest.raises(EdgeError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


def _make(artifact: Path, arguments: dict[str, Any]) -> None:
    pipeline("text2text-generation", artifact, **arguments)


@pytest.mark.parametrize(
    "inputs", [7, [7], [["a", "b"]], {"other": "a"}, {"text": "a", "input": "b"}]
)
def test_inputs_that_are_no_texts(pipe: Text2TextPipeline, inputs: Any) -> None:
    with pytest.raises(UsageError, match="input"):
        pipe(inputs)


@pytest.mark.parametrize(
    "arguments",
    [
        {"device": 0},
        {"device": "cuda"},
        {"dtype": "bfloat16"},
        {"framework": "pt"},
        {"tokenizer": "t5-small"},
        {"trust_remote_code": True},
    ],
)
def test_what_an_artifact_can_not_change(artifact: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not supported"):
        _make(artifact, arguments)


def test_what_changes_nothing_is_accepted(artifact: Path) -> None:
    same = {"device": -1, "tokenizer": str(artifact), "trust_remote_code": False, "num_workers": 0}
    with pipeline("text2text-generation", model=str(artifact), **same) as pipe:
        assert pipe(TEXTS[0], max_new_tokens=2)


def test_unknown_tasks_and_missing_models(artifact: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'summarization'"):
        pipeline("summarizatio", artifact)
    with pytest.raises(UsageError, match="translation_xx_to_yy"):
        pipeline("text-generation", artifact)
    with pytest.raises(UsageError, match="needs a model"):
        pipeline("summarization")
    with pytest.raises(ArtifactError):
        pipeline("summarization", artifact / "none")


def test_a_forged_task_is_refused(artifact: Path, tmp_path: Path) -> None:
    values = json.loads((artifact / "edge.json").read_text())
    for task in ({"prefix": 7}, {"prefix": "x" * 20_000}, {"num_beams": 9999}, {"regex": "a"}, []):
        forged = values | {"task_specific_params": {"summarization": task}}
        (tmp_path / "edge.json").write_text(json.dumps(forged))
        with pytest.raises(ArtifactError, match="task_specific_params.summarization"):
            read_manifest(tmp_path)


def test_a_source_with_bad_parameters_of_a_task_is_refused(
    random_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = random_model()
    config = json.loads((folder / "config.json").read_text())
    for tasks in ([], {"summarization": 1}, {"summarization": {"prefix": 1}}):
        (folder / "config.json").write_text(json.dumps(config | {"task_specific_params": tasks}))
        with pytest.raises(ModelError, match="task_specific_params"):
            export(folder, tmp_path / "out", "onnx", "none")
    assert not (tmp_path / "out").exists()


def test_an_argument_without_effect_is_an_error(pipe: Text2TextPipeline) -> None:
    for arguments, message in (
        ({"temperature": 0.3}, "temperature has no effect without sampling"),
        ({"top_k": 3, "top_p": 0.5}, "top_k and top_p have no effect without sampling"),
        ({"length_penalty": 2.0, "num_beams": 1}, "length_penalty has no effect with one beam"),
    ):
        with pytest.raises(UsageError, match=message):
            pipe(TEXTS[0], **arguments)
        with pytest.raises(UsageError, match=message):
            Text2TextPipeline("text2text-generation", pipe.model, **arguments)
    sampled = {"do_sample": True, "num_beams": 1, "temperature": 0.3, "top_k": 3, "seed": 4}
    assert list(pipe(TEXTS[0], **sampled)[0]) == ["generated_text"]
    assert pipe(TEXTS[0], temperature=1.0, top_k=50, top_p=1.0) == pipe(TEXTS[0])
    assert pipe(TEXTS[0], length_penalty=0.5) is not None


@pytest.mark.parametrize("inputs", [b"bytes", {"a", "set"}, frozenset({"x"})])
def test_inputs_without_texts_or_order_are_refused_at_once(
    pipe: Text2TextPipeline, inputs: Any
) -> None:
    with pytest.raises(UsageError, match="use a list"):
        pipe(inputs)
