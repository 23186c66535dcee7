"""`Model`: the same behavior on every engine, as an app sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.runtime import Generation, Model, load
from edge.runtime.errors import (
    ArtifactError,
    InputTooLongError,
    UnsupportedError,
    UsageError,
)
from edge.runtime.rows import read_rows
from samples import TEXTS


@pytest.fixture(scope="module")
def model(float_artifact: Path) -> Iterator[Model]:
    with load(float_artifact) as loaded:
        yield loaded


def test_one_text_gives_one_answer(model: Model) -> None:
    answer = model.generate(TEXTS[0])
    assert isinstance(answer, Generation)
    assert answer.text
    assert answer.finish_reason == "eos"
    assert answer.token_ids
    assert model.tokenizer.eos not in answer.token_ids
    assert answer.score < 0
    assert answer.input_tokens == len(model.tokenizer.encode([TEXTS[0]])[0])
    assert answer.timings.generate_ms > 0
    assert answer.timings.total_ms >= answer.timings.generate_ms


def test_a_padded_batch_answers_as_single_texts_do(model: Model) -> None:
    together = model.generate(list(TEXTS))
    alone = [model.generate(text) for text in TEXTS]
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]
    assert [a.score for a in together] == pytest.approx([a.score for a in alone], abs=1e-3)


def test_no_texts_give_no_answers(model: Model) -> None:
    assert model.generate([]) == []
    assert model.score([], []) == []


def test_the_score_is_the_mean_log_probability_of_the_answer(model: Model) -> None:
    answer = model.generate(TEXTS[0])
    eos = [model.tokenizer.eos]
    ids = model.tokenizer.encode([TEXTS[0]])
    [log_probs] = model.score_tokens(ids, [[*answer.token_ids, *eos]])
    assert answer.score == pytest.approx(float(log_probs.mean()), abs=1e-3)


def test_generate_tokens_takes_ids_as_they_are(model: Model) -> None:
    [ids] = model.tokenizer.encode([TEXTS[0]])
    expected = model.generate(TEXTS[0]).token_ids
    one = model.generate_tokens(ids)
    assert isinstance(one, Generation)
    assert one.token_ids == expected
    many = model.generate_tokens([ids, np.array(ids)])
    assert isinstance(many, list)
    assert [a.token_ids for a in many] == [expected, expected]
    for bad in ([[]], [[-1]], [[10**6]]):
        with pytest.raises(UsageError, match="token ids"):
            model.generate_tokens(bad)


def test_an_input_of_one_token(model: Model) -> None:
    answer = model.generate_tokens([model.tokenizer.eos], max_new_tokens=5)
    assert isinstance(answer, Generation)
    assert answer.input_tokens == 1
    assert len(answer.token_ids) <= 5


@pytest.mark.parametrize(
    "text", ["", " ", "日本の首都はどこですか", "naïve café ☕ 🙂", "</s> <pad>"]
)
def test_any_text_is_answered(model: Model, text: str) -> None:
    assert model.generate(text, max_new_tokens=8).finish_reason in ("eos", "length")


def test_minimum_and_maximum_of_new_tokens_count_eos(model: Model) -> None:
    natural = model.generate("yes")
    length = len(natural.token_ids) + 1
    longer = model.generate("yes", min_new_tokens=length + 3, max_new_tokens=length + 3)
    assert len(longer.token_ids) + (longer.finish_reason == "eos") == length + 3
    shorter = model.generate(TEXTS[0], max_new_tokens=3)
    assert len(shorter.token_ids) == 3
    assert shorter.finish_reason == "length"
    exact = model.generate("yes", max_new_tokens=length)
    assert exact.finish_reason == "eos"
    assert exact.token_ids == natural.token_ids


def test_an_input_over_the_limit(model: Model) -> None:
    limit = model.artifact.manifest.limits.max_input_tokens
    text = "word " * (limit + 10)
    with pytest.raises(InputTooLongError, match=rf"tokens, this artifact takes {limit}"):
        model.generate(text)
    cut = model.generate(text, on_long="truncate", max_new_tokens=4)
    assert cut.truncated
    assert cut.input_tokens == limit
    with pytest.raises(UsageError, match="on_long"):
        model.generate(text, on_long="cut")  # type: ignore[call-overload]
    over = model.artifact.manifest.limits.max_new_tokens + 1
    with pytest.raises(UsageError, match="limit is"):
        model.generate("yes", max_new_tokens=over)


def test_pieces_of_a_stream_make_the_answer(model: Model) -> None:
    stream = model.stream(TEXTS[0])
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == model.generate(TEXTS[0]).text
    assert stream.result.text == "".join(pieces)


def test_a_stream_can_be_left_early_and_the_model_goes_on(model: Model) -> None:
    with model.stream(TEXTS[0], min_new_tokens=30) as stream:
        next(stream)
    assert model.generate(TEXTS[1]).text


def test_stop_strings_end_the_text_before_them(model: Model) -> None:
    whole = model.generate(TEXTS[0])
    word = whole.text.split()[2]
    stopped = model.generate([TEXTS[0]], stop=word)[0]
    assert stopped.text == whole.text[: whole.text.index(word)]
    assert stopped.finish_reason == "stop"
    assert len(stopped.token_ids) < len(whole.token_ids)
    assert "".join(model.stream(TEXTS[0], stop=[word])) == stopped.text


def test_sampling_repeats_with_a_seed(model: Model) -> None:
    options = {"do_sample": True, "temperature": 3.0, "top_k": 0, "max_new_tokens": 12}
    first = [model.generate(TEXTS[0], seed=5, **options).token_ids for _ in range(3)]
    assert len(set(first)) == 1
    others = {model.generate(TEXTS[0], seed=s, **options).token_ids for s in range(8)}
    assert len(others) > 3


def test_nearly_cold_sampling_is_greedy(model: Model) -> None:
    cold = model.generate(TEXTS[0], do_sample=True, temperature=0.01, seed=1)
    assert cold.token_ids == model.generate(TEXTS[0]).token_ids
    narrow = model.generate(TEXTS[0], do_sample=True, top_k=1, seed=1)
    assert narrow.token_ids == model.generate(TEXTS[0]).token_ids


def test_beams_where_the_engine_has_them(model: Model) -> None:
    if not model.engine.supports_beams:
        with pytest.raises(UnsupportedError, match="onnx"):
            model.generate("yes", num_beams=2)
        return
    greedy = model.generate(TEXTS[1])
    best = model.generate(TEXTS[1], num_beams=4, num_return_sequences=3)
    assert best.score >= greedy.score - 1e-4
    scores = [best.score, *(a.score for a in best.alternatives)]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert len({best.token_ids, *(a.token_ids for a in best.alternatives)}) == 3


def test_a_repetition_penalty_changes_what_repeats(model: Model) -> None:
    free = model.generate(TEXTS[0], min_new_tokens=40, max_new_tokens=40)
    bound = model.generate(TEXTS[0], min_new_tokens=40, max_new_tokens=40, no_repeat_ngram_size=2)
    pairs = list(zip(bound.token_ids, bound.token_ids[1:], strict=False))
    assert len(set(pairs)) == len(pairs)
    assert free.token_ids != bound.token_ids
    penalized = model.generate(
        TEXTS[0], min_new_tokens=40, max_new_tokens=40, repetition_penalty=5.0
    )
    assert len(set(penalized.token_ids)) > len(set(free.token_ids))


def test_drafts_from_the_input_change_the_speed_and_nothing_else(
    model: Model, dataset: Path
) -> None:
    """On engines that can't draft the option does nothing."""
    texts = [*TEXTS, *(row.input for row in read_rows(dataset / "dev.jsonl"))]
    steps = tokens = 0
    for text in texts:
        plain = model.generate(text)
        for longest in (1, 8):
            drafted = model.generate(text, prompt_lookup_num_tokens=longest)
            assert drafted.token_ids == plain.token_ids
            assert drafted.finish_reason == plain.finish_reason
            assert drafted.score == pytest.approx(plain.score, abs=1e-3)
        steps += drafted.steps or 0
        tokens += len(plain.token_ids) + (plain.finish_reason == "eos")
    assert plain.steps is None
    if model.drafts_from_input:
        assert steps < 0.7 * tokens
    else:
        assert steps == 0
    # Limits count tokens, not steps.
    for options in ({"max_new_tokens": 5}, {"min_new_tokens": 30, "max_new_tokens": 33}):
        drafted = model.generate(TEXTS[0], prompt_lookup_num_tokens=8, **options)
        assert drafted.token_ids == model.generate(TEXTS[0], **options).token_ids


def test_an_answer_owes_nothing_to_the_rows_it_shares_a_batch_with(
    artifacts: Path, dataset: Path
) -> None:
    """8-bit activations too: one scale for a whole batch would let its largest value spoil all."""
    texts = [row.input for row in read_rows(dataset / "dev.jsonl")]
    with load(artifacts / "onnx-int8") as model:
        several, _ = model.encode(texts)
        target = [several[0]] * len(several)
        together = model.score_tokens(several, target, batch_size=len(several))
        apart = model.score_tokens(several, target, batch_size=2)
        for one, other in zip(together, apart, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_several_threads_get_their_own_answers(model: Model) -> None:
    expected = {text: model.generate(text).token_ids for text in TEXTS}
    wrong: list[object] = []

    def work(text: str) -> None:
        try:
            for _ in range(5):
                if model.generate(text).token_ids != expected[text]:
                    wrong.append(text)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(text,)) for text in TEXTS for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_scores_of_pairs_are_log_probabilities(model: Model) -> None:
    target = model.generate(TEXTS[0]).text
    good = model.score(TEXTS[0], target)
    bad = model.score(TEXTS[0], "stones and numbers")
    assert (good <= 0).all()
    assert good.mean() > bad.mean()
    assert len(good) == len(model.tokenizer.encode([target])[0])
    together = model.score([TEXTS[0], TEXTS[2]], [target, "yes"])
    np.testing.assert_allclose(together[0], good, atol=1e-3)
    with pytest.raises(UsageError, match="inputs but"):
        model.score([TEXTS[0]], ["a", "b"])


def test_a_closed_model_says_so(float_artifact: Path) -> None:
    with load(float_artifact) as model:
        assert model.generate(TEXTS[0]).text
    assert model.closed
    model.close()
    with pytest.raises(UsageError, match="closed"):
        model.generate("yes")


def test_two_models_in_one_process(float_artifact: Path) -> None:
    with load(float_artifact) as one, load(float_artifact, threads=2) as two:
        assert two.engine.threads == 2
        assert one.generate(TEXTS[0]).text == two.generate(TEXTS[0]).text
        one.close()
        assert two.generate(TEXTS[0]).text


def test_a_damaged_model_file_is_one_clear_error(float_artifact: Path, tmp_path: Path) -> None:
    """Sizes and manifest agree, but the content is noise: the engine must refuse, not crash."""
    import json
    import shutil

    from edge.runtime.artifact import sha256_of

    folder = tmp_path / "damaged"
    shutil.copytree(float_artifact, folder)
    manifest = json.loads((folder / "edge.json").read_text())
    biggest = max(
        (n for n in manifest["files"] if n != "tokenizer.json"),
        key=lambda n: manifest["files"][n]["size"],
    )
    model_file = "model.onnx" if manifest["format"] == "onnx" else biggest
    path = folder / model_file
    path.write_bytes(b"\x93noise" * (path.stat().st_size // 6 + 1))
    manifest["files"][model_file] = {"sha256": sha256_of(path), "size": path.stat().st_size}
    (folder / "edge.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=model_file) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_gets_the_likely_one(model: Model) -> None:
    with pytest.raises(UsageError, match="Did you mean 'num_beams'"):
        model.generate("yes", num_beam=2)
