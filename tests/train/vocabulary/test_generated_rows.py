"""Shares of SQL, shell, JSON and code rows that come back with T5's vocabulary, and extended."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.train.vocabulary import resolve
from edge.train.vocabulary.lost import restored

_ROWS = 2000
_TABLES, _COLUMNS = ("orders", "users", "line_items"), ("id", "name", "created_at", "total")
_FILES = ("notes.txt", "~/src/*.py", '"$HOME/my file"', "/var/log/{a,b}.log")


def sql(r: random.Random) -> str:
    """A query on one line or several, some with comparisons and JSON operators."""
    columns = ", ".join(r.sample(_COLUMNS, r.randint(1, 3)))
    condition = f"{r.choice(_COLUMNS)} {r.choice(('=', '<', '<=', '>', 'LIKE', '<>'))} "
    condition += r.choice(("'a%'", "10", "ANY('{1,2}')", "data->>'x'"))
    gap = r.choice((" ", "\n", "\n  "))
    return f"SELECT {columns}{gap}FROM {r.choice(_TABLES)}{gap}WHERE {condition};"


def shell(r: random.Random) -> str:
    """A pipeline with variables, redirection, substitution or a loop."""
    first = f"{r.choice(('grep -v', 'sort -u', 'wc -l', 'cat'))} {r.choice(_FILES)}"
    second = r.choice(
        (
            "| awk '{print $1}'",
            "> out.txt 2>&1",
            "| sed 's/^a\\.b/c/'",
            "< in.txt",
            "| head -n 5",
            "| xargs -I {} cp {} `pwd`",
            "&& echo done",
        )
    )
    return f"{first} {second}"


def yaml(r: random.Random) -> str:
    """Nested keys and lists."""
    return "".join(f"{key}:\n  - {r.randint(1, 9)}\n  - x{key}\n" for key in r.sample(_COLUMNS, 2))


def code(r: random.Random) -> str:
    """A function, indented with spaces or tabs."""
    indent = r.choice(("    ", "\t"))
    name = r.choice(_COLUMNS)
    return f"def {name}(x):\n{indent}if x < {r.randint(1, 9)}:\n{indent * 2}return {{x: ~x}}\n"


@pytest.mark.parametrize(
    ("make", "at_most"), [(sql, 0.25), (shell, 0.25), (yaml, 0.0), (code, 0.0)]
)
def test_generated_rows(
    make: Callable[[random.Random], str],
    at_most: float,
    shared: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "t5-tokenizer")
    rows = [make(random.Random(seed)) for seed in range(_ROWS)]
    before = sum(restored(rows, tokenizer.backend_tokenizer)) / _ROWS
    vocabulary = resolve(tokenizer, rows, "extend")
    assert before <= at_most
    assert all(restored(rows, vocabulary.tokenizer.backend_tokenizer))
    assert len(vocabulary.tokenizer) <= 32128, "the ids that FLAN-T5 leaves unused suffice"


def test_json_made_from_commands(shared: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "t5-tokenizer")
    lines = (shared / "data" / "tldr" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    commands = [json.loads(line)["target"].split(" ") for line in lines]
    rows = [json.dumps({"cmd": c[0], "args": c[1:]}, indent=2) for c in commands]
    assert not any(restored(rows, tokenizer.backend_tokenizer))
    assert all(restored(rows, resolve(tokenizer, rows, "extend").tokenizer.backend_tokenizer))
