"""Mutants that pass the readers, loaded by ctranslate2 and llama.cpp under valgrind's memcheck.

A wrong read or write that does not crash shows only there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hostile_runner import ForkServer, choose, write_mutant

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind"),
]

MUTANTS = 600
OPTIONS = ("--undef-value-errors=no", "--error-limit=no", "--num-callers=30")
FILES = {"ctranslate2": "model.bin", "gguf": "model.gguf"}
LIBRARIES = re.compile(r"libctranslate2|libllama|libggml|_ext\.cpython")
ERROR = re.compile(r"Invalid (read|write|free)|overlap in|Mismatched free")


@pytest.mark.parametrize(
    ("name", "folder"), [("ctranslate2", "ctranslate2-int8"), ("gguf", "gguf-q8_0")]
)
def test_no_wrong_access(name: str, folder: str, artifacts: Path, tmp_path: Path) -> None:
    original = artifacts / folder
    passing = [original]
    server = ForkServer(name)
    for number, mutant in enumerate(choose(name, original, tmp_path, MUTANTS)):
        written = tmp_path / f"mutant-{number}"
        write_mutant(original, mutant, written)
        is_kept = (
            mutant.file == FILES[name]
            and server.try_folder(written, mutant.file)["outcome"] == "ok"
        )
        if is_kept:
            passing.append(written)
        else:
            shutil.rmtree(written)
    server.close()
    assert len(passing) > 10
    log = tmp_path / "valgrind.txt"
    script = Path(__file__).with_name("load_folders.py")
    ended = subprocess.run(
        [
            *("valgrind", *OPTIONS, f"--log-file={log}"),
            *(sys.executable, "-P", str(script), *map(str, passing)),
        ],
        env={**os.environ, "PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout) == len(passing)
    # The dynamic loader reads past strings, in any program: only stacks of the libraries count.
    faults = [
        report
        for report in re.split(r"==\d+== *\n", log.read_text(errors="replace"))
        if ERROR.search(report) and LIBRARIES.search(report)
    ]
    assert not faults, faults[0]
