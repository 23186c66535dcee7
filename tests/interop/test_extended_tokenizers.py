"""Extended tokenizers in transformers.js, transformers and the runtime: same ids, same texts."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_transformers_js import PACKAGE, VERSION, run

from edge.runtime.text.tokenization import Tokenizer
from edge.train.vocabulary import resolve
from edge.train.vocabulary.lost import restored
from node import installed

SCRIPT = Path(__file__).with_name("tokenize_in_transformers_js.mjs")
TEXTS = (
    '{\n  "cmd": "grep",\n  "args": [\n    "-v",\n    "a\\\\b"\n  ]\n}',
    '{\n\t"a": [1,  2],\n\t\t"b":   null\n}\n',
    "def f(x):\n    if x < 3:\n        return {x: ~x}\n",
    "a\r\nb\tc\n\n\nd",
    "\n",
    "\t\t",
    " ",
    "     ",
    "  leading and trailing   ",
    "a line \n  and the next  \n",
    "find . -name '*~' | grep `whoami` < a\\b^c",
    "½ … x² a\u00a0b",
    "привет, мир: ёж — São Paulo",
    "日本語。 한글",
    "plain words, 3.5 % of them",
    "",
)


def mixed(count: int) -> list[str]:
    """Texts of words, brackets and white space in any order."""
    parts = (
        "the",
        "bridge",
        "{",
        "}",
        "\n",
        "\t",
        " ",
        "  ",
        "     ",
        "<",
        "\\",
        '"',
        ":",
        "é",
        "3",
    )
    r = random.Random(0)
    return ["".join(r.choices(parts, k=r.randint(1, 12))) for _ in range(count)]


@pytest.fixture(scope="module")
def folders(shared: Path, small_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders with T5's tokenizer and one of `edge train`, both extended."""
    from transformers import AutoTokenizer

    found = []
    for folder in (shared / "t5-tokenizer", small_tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert not any(restored(TEXTS[:3], tokenizer.backend_tokenizer))
        vocabulary = resolve(tokenizer, [*TEXTS, *mixed(300)], "extend")
        found.append(tmp_path_factory.mktemp("extended"))
        vocabulary.tokenizer.save_pretrained(found[-1])
    return found


def test_all_three_agree(folders: list[Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    modules = installed(PACKAGE, VERSION)
    texts = [*TEXTS, *mixed(300)]
    calls = tmp_path / "calls.json"
    calls.write_text(json.dumps({"folders": [str(f) for f in folders], "texts": texts}))
    done = subprocess.run(
        ["node", str(SCRIPT), str(calls)],
        env={**os.environ, "NODE_PATH": str(modules)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for folder, found in zip(folders, json.loads(done.stdout.splitlines()[-1]), strict=True):
        fast = AutoTokenizer.from_pretrained(folder)
        runtime = Tokenizer(folder / "tokenizer.json", eos=fast.eos_token_id)
        assert fast.is_fast
        ids = runtime.encode(texts)
        assert fast(texts)["input_ids"] == ids
        assert found["ids"] == ids
        assert runtime.decode(ids) == texts
        assert fast.batch_decode(ids, skip_special_tokens=True) == texts
        assert found["texts"] == texts
        for text, row, starts in zip(texts, ids, found["starts"], strict=True):
            assert starts == runtime.decode([row[:end] for end in range(len(row))])
            assert all(text.startswith(start) for start in starts)


def test_answers_over_several_lines(export_hub: Any, tmp_path: Path) -> None:
    """A trained model's answers with newlines and indentation are the artifact's."""
    from edge.export import export
    from edge.runtime import load
    from edge.train import TrainConfig, train

    modules = installed(PACKAGE, VERSION)
    rows = tmp_path / "rows.jsonl"
    pairs = [(f"show {n}", json.dumps({"show": n, "list": []}, indent=2)) for n in range(300)]
    rows.write_text("".join(json.dumps({"input": a, "target": b}) + "\n" for a, b in pairs))
    model = tmp_path / "model"
    train(
        TrainConfig(
            data=rows, output=model, from_scratch="tiny", epochs=16, dev_ratio=0.05, threads=1
        )
    )
    export(model, tmp_path / "artifact", "onnx", "int8")
    texts = ("show 7", "show 120")
    found = run(modules, export_hub(model, "int8"), "", tmp_path, {"max_new_tokens": 40}, texts)
    with load(tmp_path / "artifact") as loaded:
        expected = loaded.generate(list(texts), batch_size=1, max_new_tokens=40)
    assert all('{\n  "show": ' in answer.text for answer in expected)
    assert found["texts"] == [answer.text for answer in expected]
