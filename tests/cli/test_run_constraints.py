"""`edge run` with constraints, and what it says without the library or on other formats."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.runtime.install import install_command

pytest.importorskip("llguidance")

from samples import TEXTS

Edge = Callable[..., Any]


def test_answers_are_constrained(artifacts: Path, edge: Edge, tmp_path: Path) -> None:
    artifact = artifacts / "onnx-float32"
    found = edge("run", artifact, TEXTS[0], "--choice", "yes", "--choice", "no")
    assert found.out in ("yes\n", "no\n")
    assert edge("run", artifact, TEXTS[0], "--regex", "[0-9]{3}", "--stream").out.strip().isdigit()
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": [1, 22]}')
    assert json.loads(edge("run", artifact, TEXTS[0], "--json-schema", schema).out) in (1, 22)
    inline = edge("run", artifact, TEXTS[0], "--json-schema", '{"const": [3, 4]}')
    assert json.loads(inline.out) == [3, 4]
    grammar = tmp_path / "words.lark"
    grammar.write_text('start: "who" | "when"\n')
    assert edge("run", artifact, TEXTS[0], "--grammar", grammar).out in ("who\n", "when\n")
    copied = edge("run", artifact, "one two 35", "--copy-only", "--copy-allow", "three?")
    assert set(copied.out.replace("?", " ").split()) <= {"one", "two", "35", "three"}


def test_rows_are_constrained(artifacts: Path, edge: Edge, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"input": text}) + "\n" for text in TEXTS))
    output = tmp_path / "answers.jsonl"
    ended = edge(
        *("run", artifacts / "gguf-f32", "--input", rows, "--output", output, "--choice", "a")
    )
    assert ended.status == 0
    assert [json.loads(line)["output"] for line in output.read_text().splitlines()] == ["a"] * 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--json-schema", "missing.json"), "missing.json: can't be read"),
        (("--json-schema", "{"), "--json-schema is not JSON"),
        (("--grammar", "missing.lark"), "missing.lark: can't be read"),
        (("--choice", "a", "--regex", "b"), "can't be combined"),
        (("--copy-allow", "b"), "--copy-allow needs --copy-only"),
        (("--regex", ""), "regex must be a text"),
    ],
    ids=str,
)
def test_bad_options(
    options: tuple[str, ...], said: str, artifacts: Path, assert_refused: Callable[..., str]
) -> None:
    assert said in assert_refused("run", artifacts / "onnx-float32", "text", *options)


def test_ctranslate2_names_the_formats(artifacts: Path, assert_refused: Callable[..., str]) -> None:
    said = assert_refused("run", artifacts / "ctranslate2-float32", "text", "--choice", "a")
    assert "do not support choices; use an artifact of format onnx, gguf or torchscript" in said


def test_a_missing_library_is_one_line(
    artifacts: Path,
    edge: Edge,
    assert_refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "llguidance":
            raise ModuleNotFoundError("no llguidance", name="llguidance")
        return wanted(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    artifact = artifacts / "onnx-float32"
    said = assert_refused("run", artifact, "text", "--regex", "a", status=1)
    assert install_command("constrained") in said
    assert edge("run", artifact, TEXTS[0], "--choice", "yes").out == "yes\n"  # needs no library


def test_a_constraint_is_no_default_of_an_artifact(
    artifacts: Path, trained: Path, tmp_path: Path, assert_refused: Callable[..., str]
) -> None:
    import shutil

    from edge.export import export
    from edge.runtime import UsageError

    folder = tmp_path / "copy"
    shutil.copytree(artifacts / "onnx-float32", folder)
    manifest = json.loads((folder / "edge.json").read_text())
    manifest["generation"]["regex"] = "a"
    (folder / "edge.json").write_text(json.dumps(manifest))
    assert "regex is no default of a model" in assert_refused("info", folder)
    with pytest.raises(UsageError, match="give it to each call"):
        export(trained, tmp_path / "out", "onnx", generation={"regex": "a"})
