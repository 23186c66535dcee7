"""Scores of answers: those of the reference implementations, with their intervals."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.bench.artifacts import scores
from edge.bench.artifacts.accuracy import copy_baseline, measure_accuracy
from edge.bench.artifacts.agreement import (
    agree,
    choose_references,
    reference_answers,
    with_agreement,
)
from edge.bench.artifacts.scores import RowScores, ratio_interval
from edge.runtime import load
from edge.runtime.artifact import Artifact
from edge.runtime.artifact.manifest import Source
from edge.runtime.errors import EdgeError
from edge.runtime.rows import Row, read_rows
from edge.train.metrics import text_metrics

_WORDS = ("the", "bridge", "of", "Verona", "was", "built", "in", "1920", "by", "Anna,", "stones")


def _pairs(count: int) -> tuple[list[str], list[str]]:
    """Answers that lack a word here and there, and their references."""
    draw = random.Random(5)
    references = [" ".join(draw.choices(_WORDS, k=10)) + "?" for _ in range(count)]
    answers = [" ".join(w for w in text.split() if draw.random() > 0.1) for text in references]
    return answers, references


def test_figures_are_those_of_the_reference_implementations() -> None:
    import sacrebleu

    answers, references = _pairs(40)
    found = RowScores(answers, references).metrics()
    for name, value in text_metrics(answers, references).items():
        assert found[name] == pytest.approx(value), name
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score)
    assert "eval_loss" not in found


def test_intervals_are_those_of_scoring_the_texts_again() -> None:
    import sacrebleu

    answers, references = _pairs(40)
    intervals = RowScores(answers, references).metrics()["intervals"]
    draw = random.Random(1)
    by_hand: dict[str, list[float]] = {"bleu": [], "chrf": [], "exact_match": []}
    for _ in range(200):
        chosen = draw.choices(range(40), k=40)
        texts, targets = [answers[i] for i in chosen], [references[i] for i in chosen]
        by_hand["bleu"].append(sacrebleu.corpus_bleu(texts, [targets]).score)
        by_hand["chrf"].append(sacrebleu.corpus_chrf(texts, [targets]).score)
        equal = [a == b for a, b in zip(texts, targets, strict=True)]
        by_hand["exact_match"].append(float(np.mean(equal)))
    for name, values in by_hand.items():
        low, high = np.percentile(values, (2.5, 97.5))
        allowed = 0.25 * (high - low)
        assert intervals[name] == (
            pytest.approx(low, abs=allowed),
            pytest.approx(high, abs=allowed),
        )


def test_eval_loss_counts_tokens_not_rows() -> None:
    found = RowScores(["a"] * 20, ["a"] * 20, [1.0] * 10 + [9.0] * 10, [1] * 10 + [3] * 10)
    figures = found.metrics()
    assert figures["eval_loss"] == pytest.approx(100 / 40)
    low, high = figures["intervals"]["eval_loss"]
    assert low < 2.5 < high
    assert found.metrics([0, 19])["eval_loss"] == pytest.approx(10 / 4)


def test_intervals_are_repeatable_and_none_for_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, references = _pairs(30)
    first = RowScores(answers, references).metrics()
    assert first == RowScores(answers, references).metrics()
    assert RowScores(answers[:9], references[:9]).metrics()["intervals"] == {}
    # Many rows are drawn in pieces, and fewer times: the time has a bound.
    monkeypatch.setattr(scores, "_DRAWS", 3_000)
    monkeypatch.setattr(scores, "_DRAWS_AT_ONCE", 70)
    matrix = np.arange(60.0).reshape(30, 2)
    sums = scores._resampled_sums(matrix)
    assert sums.shape == (200, 2)
    assert (sums[:, 1] - sums[:, 0]).tolist() == [30] * 200  # 30 rows each time
    assert len(np.unique(sums[:, 0])) > 100


def test_a_share_has_the_binomial_interval() -> None:
    low, high = ratio_interval(0.5, 100)
    assert low == pytest.approx(0.40, abs=0.01)
    assert high == pytest.approx(0.60, abs=0.01)


def test_tasks_fit_and_worst_rows(artifacts: Path, dataset: Path) -> None:
    rows = read_rows(dataset / "dev.jsonl")[:30]
    rows = [
        dataclasses.replace(row, task=("short", "long", None)[i % 3]) for i, row in enumerate(rows)
    ]
    long = "word " * 600
    rows.append(Row(long, "Nothing of the kind", "short", 77))
    with load(artifacts / "onnx-float32") as model:
        found = measure_accuracy(model, rows, worst=4)
        alone = measure_accuracy(model, [row for row in rows if row.task == "long"])
    assert list(found.tasks) == ["short", "long"]  # the largest first
    assert found.tasks["short"].rows == 11
    for name in ("rows", "exact_match", "rouge_l", "bleu", "chrf", "eval_loss"):
        value = getattr(found.tasks["long"], name)
        assert value == pytest.approx(getattr(alone, name), rel=1e-4), name
    assert set(found.intervals) == {
        *("exact_match", "verbatim_match", "rouge_l", "bleu", "chrf", "eval_loss")
    }
    assert set(found.fit) == {"eval_loss", "rouge_l"}
    assert 1 <= len(found.worst) <= 4
    assert [row.rouge_l for row in found.worst] == sorted(row.rouge_l for row in found.worst)
    assert all(row.prediction != row.target for row in found.worst)
    giant = next(row for row in found.worst if row.line == 77)
    assert giant.target == "Nothing of the kind"
    assert len(giant.input) == 2000
    assert giant.input.endswith("…")
    values = found.as_json()
    assert "predictions" not in values
    assert values["worst"][0]["input"] == found.worst[0].input


def test_copying_the_input_is_a_baseline() -> None:
    rows = [Row("who made it", "who made it"), Row("uh who made it", "who made it")]
    found = copy_baseline(rows)
    assert found["exact_match"] == 0.5
    assert 0.5 < found["rouge_l"] < 1
    assert "eval_loss" not in found


def test_agreement_with_the_source_model(trained: Path, artifacts: Path, dataset: Path) -> None:
    rows = read_rows(dataset / "dev.jsonl")[:30]
    names = ["onnx-int8", "onnx-float32", "gguf-q8_0"]
    measured, manifests = [], []
    for name in names:
        with load(artifacts / name) as model:
            measured.append(measure_accuracy(model, rows))
            manifests.append(model.artifact.manifest)
    found = agree(names, manifests, measured, rows)
    assert [one.reference for one in found if one] == ["onnx-float32"] * 3
    for one in found:
        assert one is not None
        equal = [a == b for a, b in zip(one.predictions, measured[1].predictions, strict=True)]
        assert one.agreement == np.mean(equal)
        assert one.intervals["agreement"][0] <= one.agreement <= one.intervals["agreement"][1]
    # transformers itself, with the prompt and limits of an export, is float32's equal.
    [exact] = agree(names[1:2], manifests[1:2], measured[1:2], rows, trained)
    assert exact is not None
    assert exact.agreement == 1.0
    assert exact.reference == str(trained)
    # Nothing to compare with: no float32 artifact, of another model, or not measured.
    assert agree(names[:1], manifests[:1], measured[:1], rows) == measured[:1]
    assert agree(names[:2], manifests[:2], [measured[0], None], rows) == [measured[0], None]


def test_a_reference_is_float32_of_the_same_weights(artifacts: Path) -> None:
    exact = Artifact.open(artifacts / "ctranslate2-float32").manifest
    small = Artifact.open(artifacts / "onnx-int8").manifest
    other = dataclasses.replace(small, source=Source("other", "0" * 64))
    listed = dataclasses.replace(exact, shortlist={"size": 9})
    assert choose_references([small, None, listed, exact, other]) == [3, None, 3, 3, None]
    assert choose_references([small, listed]) == [None, None]


def test_a_reference_that_is_nothing(tmp_path: Path, artifacts: Path) -> None:
    rows = [Row("a", "b")]
    for bad in (tmp_path, tmp_path / "missing"):
        with pytest.raises(EdgeError, match=str(bad)):
            reference_answers(bad, rows)


def test_agreement_wants_as_many_answers(artifacts: Path) -> None:
    answers: Sequence[str] = ["a", "b"]
    with load(artifacts / "onnx-int8") as model:
        found = measure_accuracy(model, [Row("a", "b")])
    with pytest.raises(ValueError, match="zip"):
        with_agreement(found, answers, "other")
