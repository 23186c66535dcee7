"""Encodings, Ctrl-C while modules load, and the names of options in messages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from edge.cli.option_names import with_option_names

COMMAND = (sys.executable, "-m", "edge.cli")
Refused = Callable[..., str]


def ended(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=120,
    )


@pytest.mark.parametrize(("encoding", "mark"), [("ascii", "✓"), ("utf-8", "✓"), ("latin-1", "+")])
def test_a_check_passes_in_every_encoding(dataset: Path, encoding: str, mark: str) -> None:
    call = ("check", dataset, "--from-scratch", "tiny")
    found = ended(*call, PYTHONIOENCODING=encoding)
    assert found.returncode == 0, found.stderr
    shown = found.stdout.decode("latin-1" if encoding == "latin-1" else "utf-8")
    assert re.search(rf"{re.escape(mark)} +data", shown)


def test_an_answer_is_never_changed(artifacts: Path) -> None:
    text = "→ " + "word " * 700
    call = ("run", artifacts / "onnx-int8", text, "--on-long", "fallback")
    found = ended(*call, PYTHONIOENCODING="latin-1")
    assert found.returncode == 1
    assert b"standard output can't hold" in found.stderr
    found = ended(*call, PYTHONIOENCODING="ascii")
    assert found.returncode == 0, found.stderr
    assert found.stdout.decode().strip() == text.strip()


def test_a_locale_that_cant_decode_arguments_is_named(artifacts: Path) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = ended("run", artifacts / "onnx-int8", "when is the café", **environment)
    assert found.returncode == 2
    assert b"set LC_ALL=C.UTF-8 or PYTHONUTF8=1" in found.stderr


def test_ctrl_c_while_modules_are_imported_is_one_line() -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'edge.cli.main':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from edge.cli.start import main\n"
        "main()\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert found.returncode == 130
    assert found.stderr == b"edge: interrupted\n"


def test_the_entry_point_imports_nothing_heavy() -> None:
    code = (
        "import edge.cli.start, sys; print('click' in sys.modules, 'edge.cli.main' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert found.stdout.split() == [b"False", b"False"]


def test_messages_name_options() -> None:
    params: list[Any] = [
        click.Option(["--choice", "choices"], multiple=True),
        click.Option(["--regex"]),
        click.Option(["--copy-only"], is_flag=True),
        click.Option(["--copy-allow"], multiple=True),
        click.Option(["--max-new-tokens"], type=int),
        click.Option(["--stop"], multiple=True),
    ]
    for message, expected in {
        "choices and regex can't be combined; use one of them": (
            "--choice and --regex can't be combined; use one of them"
        ),
        "copy_allow needs copy_only": "--copy-allow needs --copy-only",
        "max_new_tokens must be a whole number": "--max-new-tokens must be a whole number",
        "stop_strings must be non-empty strings": "--stop must be non-empty strings",
        "answers with an output check can't be streamed; use generate": (
            "answers with an output check can't be streamed; leave out --stream"
        ),
        "the regex of max_new_tokens": "the regex of --max-new-tokens",
        "/data/copy_only/x: not there": "/data/copy_only/x: not there",
    }.items():
        assert with_option_names(message, params) == expected


def test_commands_speak_of_options(assert_refused: Refused, artifacts: Path) -> None:
    artifact = artifacts / "onnx-int8"
    line = assert_refused("run", artifact, "x", "--max-new-tokens", 0)
    assert "--max-new-tokens must be" in line
    line = assert_refused("run", artifact, "x", "--choice", "a", "--regex", "b")
    assert "--choice and --regex can't be combined" in line
    line = assert_refused("run", artifact, "x", "--copy-allow", "a")
    assert "--copy-allow needs --copy-only" in line


def test_a_folder_that_does_not_exist_is_said_so(
    assert_refused: Refused, trained: Path, tmp_path: Path
) -> None:
    assert "no such folder" in assert_refused("runs", tmp_path / "nope")
    call = ("merge", trained, tmp_path / "nope", "-o", tmp_path / "out")
    assert "no such folder" in assert_refused(*call)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_quickstart_names_its_folder(assert_refused: Refused) -> None:
    line = assert_refused("quickstart", "-o", "/proc/edge-demo", status=1)
    assert line.startswith("edge: /proc/edge-demo can't be written")
    assert "--json" not in line


@pytest.mark.parametrize("columns", ["40", "80", "160"])
def test_presets_and_lengths_fit_narrow_terminals(
    edge: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    trained: Path,
    tmp_path: Path,
    columns: str,
) -> None:
    from edge.train.presets import presets

    monkeypatch.setenv("COLUMNS", columns)
    shown = edge("presets").out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= int(columns)
    words = shown.split()
    for preset in presets().values():
        assert preset.name in words
        if int(columns) >= 80:  # below, long names are folded
            assert all(field in shown for field in preset.fields)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"input": "a", "target": "b"}) + "\n" for _ in range(9)))
    lengths = edge("data", "lengths", rows, "-m", trained).out
    tables = lengths.partition("recommended")[0]
    assert tables.count("train input") == tables.count("train target") >= 1
