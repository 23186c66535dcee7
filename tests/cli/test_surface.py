"""The command line as a whole: one meaning per option, one notation in the help, and the page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import pytest

from edge.cli.base import Command, Group
from edge.cli.help_docs import command_names
from edge.cli.main import cli
from edge.cli.param_types import Duration, IntegerList

Edge = Callable[..., Any]
Refused = Callable[..., str]
Words = tuple[str, ...]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
SHORT_FLAGS = {
    "-f": "--format",
    "-h": "--help",
    "-m": "--model",
    "-n": "--limit",
    "-o": "--output",
    "-q": "--quantize",
    "-v": "--verbose",
    "-V": "--version",
}


def command_of(words: Words) -> click.Command:
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    return command


COMMANDS = {words: command_of(words) for words in command_names()}
OPTIONS = [
    (words, option)
    for words, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]


@pytest.fixture(scope="module")
def helps() -> dict[Words, str]:
    """What the installed `edge … --help` prints on a terminal of 80 columns, by command."""
    program = Path(sys.executable).with_name("edge")

    def printed(words: Words) -> str:
        return subprocess.run(
            [program, *words, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        ).stdout

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(COMMANDS, pool.map(printed, COMMANDS), strict=True))


def test_the_page_is_what_the_installed_command_prints(helps: dict[Words, str]) -> None:
    blocks = re.findall(r"```text\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == len(helps)
    for (words, text), block in zip(helps.items(), blocks, strict=True):
        lines = [line.rstrip() for line in text.rstrip().splitlines()]
        assert block.splitlines() == lines, f"edge {' '.join(words)}: run make help-docs"
    headings = re.findall(r"^##+ edge (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [" ".join(words) for words in helps if words]


def test_help_fits_80_columns_and_has_one_notation_for_defaults(helps: dict[Words, str]) -> None:
    for words, text in helps.items():
        assert max(map(len, text.splitlines())) <= 80, words
        joined = re.sub(r"\s+", " ", text)
        assert len(re.findall("default:", joined)) == len(re.findall(r"\[default: ", joined)), words
        for note in re.findall(r"[.)] {1,2}\[([^\]]*)\]", joined):
            assert re.match(r"default: |required|[-\d.x<>=]+$|\w+(\|\w+)*$", note), (words, note)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_repeated_option_is_a_list_or_an_error(words: Words, assert_refused: Refused) -> None:
    command = COMMANDS[words]
    assert isinstance(command, Command | Group)
    for option in command.params:
        if not isinstance(option, click.Option) or option.multiple or option.is_eager:
            continue
        once = [option.opts[-1]] if option.is_flag else [option.opts[-1], "1"]
        assert "is given 2 times" in assert_refused(*words, *once, *once), option
        if option.secondary_opts:
            other = option.secondary_opts[0]
            assert "is given 2 times" in assert_refused(*words, *once, other), option


def test_short_flags_mean_the_same_everywhere() -> None:
    for words, option in OPTIONS:
        for name in option.opts:
            if not name.startswith("--"):
                assert SHORT_FLAGS[name] in option.opts, (words, option)
        for short, long in SHORT_FLAGS.items():
            if long in option.opts:
                assert short in option.opts, (words, option)


def test_options_of_one_name_take_the_same_kind_of_value() -> None:
    kinds: dict[str, set[str]] = {}
    for words, option in OPTIONS:
        # `edge train` takes text, which presets and files give as well; `info --json [FILE]` is
        # the one option whose value may be left out.
        if words and words[0] not in ("train", "check"):
            kind = "flag" if option.is_flag else type(option.type).__name__
            kinds.setdefault(option.opts[-1], set()).add(re.sub("Range|ParamType|Output", "", kind))
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}
    assert kinds["--time-limit"] == {"Duration"}
    assert kinds["--json"] == {"Path"}


def test_durations_and_lists_are_parsed() -> None:
    assert Duration().convert("1.5m", None, None) == 90
    assert Duration(0).convert("0", None, None) == 0
    assert Duration().convert(2, None, None) == 2
    with pytest.raises(click.UsageError, match="is not a duration"):
        Duration().convert("0", None, None)
    with pytest.raises(click.BadParameter, match="at least 1s and at most 1h"):
        Duration(1, 3600).convert("2h", None, None)
    assert IntegerList().convert("1, 8", None, None) == (1, 8)
    for text in ("", "1,x", "1,,2", "-1"):
        with pytest.raises(click.BadParameter, match="not a list of whole numbers"):
            IntegerList().convert(text, None, None)


def test_verbose_goes_before_or_after_the_command(edge: Edge) -> None:
    from edge.runtime.errors import ArtifactError

    for arguments in (("-v", "info", "x"), ("info", "x", "--verbose"), ("info", "--debug", "x")):
        with pytest.raises(ArtifactError):
            _raising(arguments)
    # As the value of an option it is no flag.
    assert "is not an artifact" in edge("run", "x", "y", "--stop", "-v").err


def _raising(arguments: Words) -> None:
    from edge.cli.main import main

    main(arguments)


def test_export_takes_several_formats(edge: Edge, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    ended = edge("export", trained, "-f", "onnx", "-f", "gguf", "-q", "none", "-o", output)
    assert ended.status == 0, ended.err
    assert {path.name for path in output.iterdir()} == {"onnx-float32", "gguf-f32"}


def test_a_layout_for_the_hub_is_onnx_only(
    assert_refused: Refused, trained: Path, tmp_path: Path
) -> None:
    line = assert_refused(
        "export", trained, "-f", "onnx", "-f", "gguf", "--layout", "hub", "-o", tmp_path / "x"
    )
    assert "is for --format onnx only, not for gguf" in line


def test_json_goes_to_a_file_or_alone_to_standard_output(
    edge: Edge, artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    artifact, file = artifacts / "onnx-int8", tmp_path / "info.json"
    assert edge("info", artifact, "--json", file).out == ""
    assert file.read_text() == edge("info", artifact, "--json").out
    assert json.loads(edge("info", artifact, "--json", "-").out)["format"] == "onnx"
    ended = edge(
        *("bench", artifact, "--data", dataset / "dev.jsonl", "-n", 5, "--runs", 30),
        *("--min-time", "1ms", "--target-ms", 60_000, "--json", "-"),
    )
    assert json.loads(ended.out)["results"][0]["format"] == "onnx"
    assert "exact match" in ended.err


def test_two_reports_are_compared(
    edge: Edge, assert_refused: Refused, artifacts: Path, dataset: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    ended = edge(
        *("bench", artifacts / "onnx-int8", "--data", dataset / "dev.jsonl", "-n", 5),
        *("--runs", 30, "--min-time", 0, "--target-ms", 60_000, "--json", old),
    )
    assert ended.status == 3, ended.err  # 30 runs show no p95
    values = json.loads(old.read_text())
    values["results"][0]["latency"]["p50"] *= 2
    new.write_text(json.dumps(values))
    compared = edge("compare", old, new)
    assert compared.status == 0, compared.err
    assert "2.00" in compared.out
    line = assert_refused("compare", old, new, "--fail-slower", 1.5, status=1)
    assert "slower than 1.5 times the old run: onnx-int8 (2.00 times the p50" in line
    assert edge("compare", new, old, "--fail-slower", 1.5).status == 0
    assert "can't be read" in assert_refused("compare", old, tmp_path / "none.json")
