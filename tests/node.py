"""npm packages for the tests that run a model file in Node.js."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What npm calls a registry that is not there, or that a proxy keeps away.
_UNREACHABLE = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH"
    r"|ERR_SOCKET_TIMEOUT|code E(?:40[137]|5\d\d)\b"
)


def installed(package: str, version: str) -> Path:
    """The node_modules folder with that package: installed once, kept in build/ between runs.

    Skips the test where there is no npm, or where its registry is out of reach.
    """
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            pytest.skip(f"no {command} on this machine")
    cached = ROOT / "build" / f"{package.replace('/', '-')}-{version}"
    if not cached.exists():
        cached.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
            folder = Path(scratch) / "npm"
            folder.mkdir()
            _install(folder, f"{package}@{version}")
            try:
                folder.rename(cached)
            except OSError:  # another run was first
                assert cached.is_dir()
    return cached / "node_modules"


def _install(folder: Path, what: str) -> None:
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    command = ["npm", "install", "--prefix", str(folder), *quiet, what]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry did not deliver in ten minutes")
    if done.returncode and _UNREACHABLE.search(done.stderr):
        pytest.skip(f"npm can't reach its registry: {done.stderr.strip()[:300]}")
    assert done.returncode == 0, done.stderr
