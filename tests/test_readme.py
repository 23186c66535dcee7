"""The commands and code of README.md, run as they are there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, heading: str) -> list[str]:
    """The code blocks of one language below a heading."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


@pytest.fixture(scope="module")
def work_dir(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(dataset, folder / "my-data")
    shutil.copy(dataset / "dev.jsonl", folder / "questions.jsonl")
    return folder


def run(command: str, folder: Path) -> str:
    # The README says so: `--from-scratch tiny` stands in for a model from the hub.
    command = command.replace(
        "--model google/flan-t5-small", "--from-scratch tiny --time-limit 18s"
    )
    # The whole search takes a minute; tests/cli/test_compile.py covers it. float32 is included
    # because 8 bits can cost a model trained for 18 seconds more than half a percent.
    command = command.replace(
        "edge compile", "edge compile --format onnx --quantize none --quantize int8"
    )
    program, *arguments = shlex.split(command, comments=True)
    assert program == "edge"
    ended = subprocess.run(
        [sys.executable, "-m", "edge.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_your_own_data_then_in_an_app(work_dir: Path) -> None:
    """All commands in order, each on the files of the one before; then the Python example."""
    commands = [
        line for block in blocks("sh", "Your own data") for line in block.splitlines() if line
    ]
    assert len(commands) == 9
    for command in commands:
        printed = run(command, work_dir)
        assert printed.strip() or "--output answers.jsonl" in command, command
    answers = (work_dir / "answers.jsonl").read_text().splitlines()
    assert len(answers) == len((work_dir / "questions.jsonl").read_text().splitlines())
    [code] = blocks("python", "In an app")
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=work_dir, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()


def test_the_first_screens_commands_exist() -> None:
    """`make demo` runs the quickstart, `make test` the suite; dry, since both run this test."""
    [first] = blocks("sh", "Try it")
    recipes = {}
    for line in first.splitlines():
        command = shlex.split(line, comments=True)
        dry = subprocess.run(
            [command[0], "-n", *command[1:]], cwd=ROOT, capture_output=True, text=True
        )
        assert dry.returncode == 0, dry.stderr
        recipes[" ".join(command)] = dry.stdout
    assert "edge quickstart" in recipes["make demo"]
    assert "pytest" in recipes["make test"]


def spoken_examples() -> list[tuple[str, str, str]]:
    """Page, input and shown answer of every example with a spoken question.

    The answer is in a comment that begins with an arrow, behind the example or below it, or on the
    line below a prompt.
    """
    pages = [ROOT / "README.md", ROOT / "examples/README.md", *(ROOT / "docs").glob("*.md")]
    found = []
    for page in sorted(pages):
        lines = page.read_text(encoding="utf-8").splitlines()
        for line, below in zip(lines, [*lines[1:], ""], strict=True):
            asked = re.search(r'"([^"]*\b(?:uh|um)\b[^"]*)"(?!:)', line)
            if asked is None or '"target"' in line:
                continue
            shown = re.search(r"(?:#|//) → (.+)$", f"{line}\n{below}", re.MULTILINE)
            answer = shown[1] if shown else below
            if shown or line.startswith("$"):
                found.append((page.name, asked[1], answer))
            else:
                found.append((page.name, asked[1], ""))
    return found


def test_spoken_examples_show_their_answers() -> None:
    examples = spoken_examples()
    assert {page for page, _, _ in examples} >= {"README.md", "serving.md", "hub.md"}
    assert all(answer for _, _, answer in examples), examples


def test_links_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "examples" / "README.md"]
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"
