"""Extended tokenizers: lost texts come back, all others keep their ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from edge.runtime.errors import DataError
from edge.runtime.text.tokenization import Tokenizer as RuntimeTokenizer
from edge.train.vocabulary import describe, extend, recorded_characters, resolve
from edge.train.vocabulary.extension import characters_between, escapes
from edge.train.vocabulary.lost import find_lost, restored

# One kind of loss each.
TEXTS = (
    '{\n\t"a": [1,  2],\n    "b": null\n}',
    " leading",
    "trailing ",
    "  both  ",
    " ",
    "   ",
    "\n",
    "end of a line \n and the start of one\r\n",
    "find . -name '*~' | grep `whoami` < a\\b^c",
    "½ … x² ﬁ ｆｕｌｌ",  # changed by NFKC
    "e\u0327\u0301 and a\u0301",  # composed by it
    "\u1112\u1161\u11ab 한글",
    "привет, мир: ёж",
    "日本語。",
    "a \u00a0 b \u200b c \x1b[0m",
    "▁ is sentencepiece's mark",
    "\ue000 is a private character",
    "👨\u200d👩\u200d👧",
)
PLAIN = ("the old bridge", "what is the river, in Berlin?", "a  b"[:1] + " b", "number 1920")


@pytest.fixture(scope="module", params=["t5", "trained"])
def folder(request: pytest.FixtureRequest) -> Path:
    if request.param == "t5":
        return Path(request.getfixturevalue("shared") / "t5-tokenizer")
    return Path(request.getfixturevalue("small_tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_lost_texts_come_back_and_others_keep_their_ids(tokenizer: Any, tmp_path: Path) -> None:
    before = tokenizer.backend_tokenizer
    assert not any(restored(TEXTS[:8], before))
    vocabulary = resolve(tokenizer, [*TEXTS, *PLAIN], "extend")
    after = vocabulary.tokenizer
    assert all(restored([*TEXTS, *PLAIN], after.backend_tokenizer))
    assert after(list(PLAIN))["input_ids"] == tokenizer(list(PLAIN))["input_ids"]
    assert sorted(vocabulary.added.values()) == [*range(len(tokenizer), len(after))]
    # The runtime accepts the file, and agrees with transformers' tokenizer from the saved folder.
    from transformers import AutoTokenizer

    after.save_pretrained(tmp_path)
    runtime = RuntimeTokenizer(tmp_path / "tokenizer.json", eos=tokenizer.eos_token_id)
    ids = runtime.encode(TEXTS)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(list(TEXTS))["input_ids"] == ids
    assert loaded.batch_decode(ids, skip_special_tokens=True) == list(TEXTS)
    assert runtime.decode(ids) == list(TEXTS)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["clean_up_tokenization_spaces"] is False  # else transformers.js would
    # Token by token, what was decoded stays as it was: a stream never takes text back.
    for text, row in zip(TEXTS, ids, strict=True):
        for end in range(len(row)):
            assert text.startswith(runtime.decode([row[:end]])[0])


def test_words_after_spaces_and_characters_compose_as_always(tokenizer: Any) -> None:
    vocabulary = resolve(tokenizer, ["{\n    the  bridge"], "extend")
    pieces = vocabulary.tokenizer.tokenize("{\n    the  bridge")
    escape = escapes(json.loads(vocabulary.tokenizer.backend_tokenizer.to_str()))
    assert set(escape) == {"\n", " "}
    start = ["▁", "{"] if "▁" in pieces[0] else ["{"]
    whole = [*start, escape["\n"] + escape[" "] * 3, escape[" "]]
    assert pieces[: len(start) + 1] == whole[:-1], "a newline and its indentation are one piece"
    words = tokenizer.tokenize("the bridge")
    assert [p for p in pieces if p not in whole] == words


def test_frequent_runs_of_white_space_are_pieces(tokenizer: Any) -> None:
    texts = ["a:\n    b\n    c", "x\n\ny", "p   q"]
    assert find_lost(texts, tokenizer.backend_tokenizer).runs == ("\n\n", "\n   ", "  ")
    vocabulary = resolve(tokenizer, texts, "extend")
    assert all(restored(texts, vocabulary.tokenizer.backend_tokenizer))
    assert {run for run in vocabulary.added if len(run) > 1} == {"\n\n", "\n   ", "  "}
    assert recorded_characters(
        {"added_characters": vocabulary.added, "vocab_size": len(vocabulary.tokenizer)}
    ) == dict(vocabulary.added)
    assert describe(["\n   ", "  "]) == "2 characters: (\\n 3 spaces) (2 spaces)"
    # A newline that has a piece already is not lost: only the spaces after it are.
    first = resolve(tokenizer, ["x\ny"], "extend").tokenizer
    assert find_lost(texts, first.backend_tokenizer).runs == ("  ", "   ")


def test_a_second_extension_adds_to_the_first(tokenizer: Any) -> None:
    first = resolve(tokenizer, ["a {\n"], "extend")
    assert not find_lost(["a {\n"], first.tokenizer.backend_tokenizer)
    second = resolve(first.tokenizer, TEXTS, "extend")
    assert "{" not in second.added
    assert "\n" not in second.added
    assert all(restored([*TEXTS, "a {\n"], second.tokenizer.backend_tokenizer))
    files = [t.backend_tokenizer.to_str() for t in (tokenizer, first.tokenizer, second.tokenizer)]
    assert characters_between(files[0], files[2]) == {**first.added, **second.added}
    assert characters_between(files[1], files[2]) == second.added
    assert characters_between(files[2], files[0]) is None


def test_policies(tokenizer: Any) -> None:
    kept = resolve(tokenizer, ["a \\ b"], "keep")
    assert (kept.tokenizer, kept.added) == (tokenizer, {}) or "\\" in tokenizer.get_vocab()
    with pytest.raises(DataError, match=r"2 characters: ф \\n.*--vocabulary extend"):
        resolve(tokenizer, ["ф\nf"], "refuse")
    fine = resolve(tokenizer, PLAIN, "refuse")
    assert (fine.tokenizer, fine.message) == (tokenizer, None)


def test_limits_keep_the_most_frequent(small_tokenizer: Path) -> None:
    tokenizer = Tokenizer.from_file(str(small_tokenizer / "tokenizer.json"))
    pieces = tokenizer.get_vocab_size()
    characters = [chr(0x4E00 + n) for n in range(9000)]
    lost = find_lost([*characters, "".join(characters[-5:])], tokenizer)
    assert (len(lost.missing), lost.left_out) == (8192, 808)
    assert set(characters[-5:]) <= set(lost.missing)
    extension = extend(tokenizer.to_str(), lost)
    assert len(json.loads(extension.tokenizer_json)["model"]["vocab"]) == pieces + 8192
    assert all(related for related in extension.related.values())


def test_characters_in_messages_can_be_read() -> None:
    shown = describe("{\n \u200b" + "".join(map(chr, range(0x430, 0x460))))
    assert shown.startswith("52 characters: { \\n repeated or outer spaces \\u200b а б")
    assert shown.endswith("and 12 more")


@pytest.mark.parametrize(
    "data", [pytest.param("tldr", marks=pytest.mark.slow), "canard", "disfl_qa"]
)
def test_all_rows_of_public_data(shared: Path, data: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "t5-tokenizer")
    texts = [
        json.loads(line)[column]
        for path in sorted((shared / "data" / data).glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
        for column in ("input", "target")
    ]
    extended = resolve(tokenizer, texts, "extend").tokenizer
    fine = restored(texts, tokenizer.backend_tokenizer)
    assert not all(fine)
    assert all(restored(texts, extended.backend_tokenizer))
    needed_nothing = [text for text, found in zip(texts, fine, strict=True) if found]
    before, after = tokenizer(needed_nothing)["input_ids"], extended(needed_nothing)["input_ids"]
    assert before == after


def test_decoding_never_cleans_up_spaces(shared: Path) -> None:
    from edge.train.model.loading import load_tokenizer

    tokenizer = load_tokenizer(str(shared / "t5-tokenizer"))  # its config asks for clean-up
    text = "find . -name red"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
