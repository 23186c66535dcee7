"""An emulated Arm64 machine: QEMU for single processes, Debian's Python, wheels for Linux arm64.

Everything lies in a cache folder (EDGE_ARM64_CACHE, default ~/.cache/edge/arm64). It is downloaded
once, with the machine's own apt and pip settings. Nothing is installed on the machine itself.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("EDGE_ARM64_CACHE", Path.home() / ".cache" / "edge" / "arm64"))
SCRIPT = Path(__file__).with_name("arm64_answers.py")
# Debian 13 has QEMU 10; version 7.2 of Debian 12 shows Arm programs the x86 CPU in /proc/cpuinfo.
QEMU_SUITE, QEMU_MIN = "trixie", 10
# Debian 12 has Python 3.11, and all packages that this Python and the wheels load.
PYTHON_SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = (
    "libbz2-1.0",
    "libc6",
    "libcrypt1",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    f"libpython{PYTHON}-minimal",
    f"libpython{PYTHON}-stdlib",
    "libssl3",
    "libstdc++6",
    "libuuid1",
    f"python{PYTHON}-minimal",
    "zlib1g",
)
WHEELS = ("numpy", "tokenizers", "onnxruntime", "ctranslate2")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")


@dataclass(frozen=True)
class EmulatedMachine:
    """The emulator, a folder with Debian's Python, and the folders of packages to import."""

    emulator: Path
    root: Path
    packages: tuple[Path, ...]

    def answers(
        self, cpu: str, artifact: Path, texts: list[str], targets: list[str]
    ) -> dict[str, Any]:
        """What `arm64_answers.py` prints when it runs on the CPU model `cpu`."""
        command = [self.emulator, "-cpu", cpu, "-L", self.root]
        command += [self.root / "usr" / "bin" / f"python{PYTHON}", SCRIPT, artifact]
        ended = subprocess.run(
            command,
            input=json.dumps({"texts": texts, "targets": targets}),
            capture_output=True,
            text=True,
            env={
                "HOME": os.environ.get("HOME", "/"),
                "PYTHONPATH": os.pathsep.join(map(str, self.packages)),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )
        assert ended.returncode == 0, f"{cpu}: {ended.stderr[-3000:]}"
        found: dict[str, Any] = json.loads(ended.stdout)
        return found


def emulated_machine(scratch: Path) -> EmulatedMachine:
    """Find or build the machine. The test is skipped where it can't be had."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("Arm64 is emulated on Linux x86-64 only; elsewhere, use make test")
    emulator = _emulator()
    root = _cached(f"python{PYTHON}", _unpack_python)
    versions = [f"{name}=={metadata.version(name)}" for name in WHEELS]
    wheels = _cached("-".join(["wheels", *versions]), lambda folder: _install(folder, versions))
    source = scratch / "source"
    (source / "edge").mkdir(parents=True)
    (source / "edge" / "runtime").symlink_to(ROOT / "runtime")
    return EmulatedMachine(emulator, root, (wheels, source))


def _emulator() -> Path:
    for name in ("qemu-aarch64", "qemu-aarch64-static"):
        if found := shutil.which(name):
            text = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
            version = re.search(r"version (\d+)", text)
            if version and int(version[1]) >= QEMU_MIN:
                return Path(found)
    folder = _cached("qemu", lambda new: _unpack(new, QEMU_SUITE, "amd64", ("qemu-user",)))
    return folder / "usr" / "bin" / "qemu-aarch64"


def _unpack_python(folder: Path) -> None:
    _unpack(folder, PYTHON_SUITE, "arm64", PACKAGES)


def _unpack(folder: Path, suite: str, architecture: str, packages: tuple[str, ...]) -> None:
    """Unpack Debian packages into a folder, with apt settings and package lists of its own."""
    for command in ("apt-get", "dpkg"):
        if shutil.which(command) is None:
            pytest.skip(f"no {command} on this machine, to get {packages[0]} with")
    with tempfile.TemporaryDirectory() as scratch:
        apt = Path(scratch)
        for name in ("lists/partial", "cache/archives/partial", "debs"):
            (apt / name).mkdir(parents=True)
        (apt / "status").touch()
        (apt / "sources.list").write_text(f"deb {_debian()} {suite} main\n")
        options = {
            "Dir::Etc::sourcelist": apt / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": apt / "lists",
            "Dir::State::status": apt / "status",
            "Dir::Cache": apt / "cache",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "",
        }
        get = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
        _run([*get, "update"], apt)
        _run([*get, "download", *packages], apt / "debs")
        for package in sorted((apt / "debs").glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(folder)], apt)


def _debian() -> str:
    """The address of the Debian archive that this machine's apt uses."""
    fields = "$(ORIGIN) $(COMPONENT) $(REPO_URI)"
    targets = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]
    listed = subprocess.run(targets, capture_output=True, text=True).stdout.splitlines()
    archives = [line.split()[2] for line in listed if line.startswith("Debian main ")]
    if not archives:
        pytest.skip("apt has no package lists of Debian here: run apt-get update on Debian")
    return min(archives, key=len)  # the others are updates


def _install(folder: Path, versions: list[str]) -> None:
    """Unpack wheels for Linux arm64 into a folder; they are of the versions installed here."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    command += [f"--platform={name}" for name in _PLATFORMS]
    _run([*command, "--target", str(folder), *versions], folder.parent)


def _run(command: list[str], folder: Path) -> None:
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} took more than ten minutes: {' '.join(command[-4:])}")
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["no output"]
        pytest.skip(f"{command[0]} can't get what the emulation needs: {lines[-1][:300]}")


def _cached(name: str, build: Callable[[Path], None]) -> Path:
    """The folder of that name in the cache, built beside its place and renamed if it is missing."""
    place = CACHE / name
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            made = Path(scratch) / "new"
            made.mkdir()
            build(made)
            try:
                made.rename(place)
            except OSError:  # another run was first
                assert place.is_dir()
    return place
