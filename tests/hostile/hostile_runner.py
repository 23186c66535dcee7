"""Tries mutants of a folder in a fork server, and reports every outcome that is a fault."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostile_archive import torchscript_mutants
from hostile_binary import ctranslate2_mutants, gguf_mutants, safetensors_mutants
from hostile_json import json_mutants
from hostile_onnx import onnx_mutants
from hostile_values import Mutant, random_bytes

MANIFEST, TOKENIZER = "edge.json", "tokenizer.json"
REPORTS = Path(__file__).resolve().parents[2] / "build" / "hostile"
FAULTS = ("exception", "not one sentence", "crash", "hang", "memory")
_MEMORY_FACTOR = 2  # of what the unchanged folder needs
_MEMORY_NOISE = 24 << 20  # bytes
_ADDRESS_SPACE = 3 << 30
# Large parts of a tokenizer.json, whose entries are alike.
_ALIKE = ("vocab", "added_tokens")
_MOST_SWEEPS = 6000  # of a format; ONNX graphs and model folders have 20,000


@dataclass
class Report:
    """What became of the mutants of one format."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    own_memory: int = 0
    largest_memory: int = 0
    slowest: float = 0.0

    def add(self, mutant: Mutant, found: dict[str, Any]) -> None:
        """Count an outcome, and keep it if it is a fault."""
        limit = _MEMORY_FACTOR * self.own_memory + _MEMORY_NOISE
        if found["memory"] > limit and found["outcome"] in ("ok", "refused"):
            found = {**found, "outcome": "memory", "detail": f"{found['memory'] >> 20} MiB"}
        self.counts[found["outcome"]] += 1
        self.largest_memory = max(self.largest_memory, found["memory"])
        self.slowest = max(self.slowest, found["seconds"])
        if found["outcome"] in FAULTS:
            self.failures.append({"format": self.name, "mutant": mutant.name, **found})

    def write(self) -> None:
        """Write the counts and failures, and the table of all formats."""
        REPORTS.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(failure) + "\n" for failure in self.failures)
        (REPORTS / f"{self.name}.failures.jsonl").write_text(lines, encoding="utf-8")
        numbers = {**vars(self), "failures": len(self.failures)}
        (REPORTS / f"{self.name}.json").write_text(json.dumps(numbers), encoding="utf-8")
        _write_summary()


def _write_summary() -> None:
    columns = ("ok", "refused", *FAULTS)
    lines = [
        f"| format | mutants | {' | '.join(columns)} | slowest | memory (own) |",
        "|" + "---|" * (len(columns) + 4),
    ]
    for path in sorted(REPORTS.glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        counts = row["counts"]
        numbers = " | ".join(str(counts.get(name, 0)) for name in columns)
        memory = f"{row['largest_memory'] >> 20} ({row['own_memory'] >> 20}) MiB"
        lines.append(
            f"| {row['name']} | {sum(counts.values())} | {numbers} | {row['slowest']:.1f} s"
            f" | {memory} |"
        )
    (REPORTS / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


class ForkServer:
    """The process that forks a child for each folder."""

    def __init__(self, use: str) -> None:
        script = Path(__file__).with_name("fork_server.py")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), use],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def try_folder(self, folder: Path, changed: str = "") -> dict[str, Any]:
        """The outcome of one folder."""
        assert self._process.stdin is not None
        request = {"folder": str(folder), "changed": changed, "memory": _ADDRESS_SPACE}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._read())
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def run_mutants(
    name: str, use: str, original: Path, mutants: Iterable[Mutant], scratch: Path
) -> Report:
    """Try each mutant of the folder `original`, after the folder itself."""
    report = Report(name)
    server = ForkServer(use)
    try:
        found = server.try_folder(original)
        assert found["outcome"] == "ok", found
        report.own_memory = found["memory"]
        folder = scratch / "mutant"
        for mutant in mutants:
            write_mutant(original, mutant, folder)
            report.add(mutant, server.try_folder(folder, mutant.file))
    finally:
        server.close()
    report.write()
    return report


def write_mutant(original: Path, mutant: Mutant, folder: Path) -> None:
    """Write a copy of a folder with one changed file, and a manifest that agrees with it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in original.iterdir():
        if path.name not in (mutant.file, MANIFEST):
            os.link(path, folder / path.name)
    content = mutant.content()
    (folder / mutant.file).write_bytes(content)
    if mutant.file == MANIFEST or not (original / MANIFEST).exists():
        return
    values = json.loads((original / MANIFEST).read_text(encoding="utf-8"))
    sha256 = hashlib.sha256(content).hexdigest()
    values["files"][mutant.file] = {"sha256": sha256, "size": len(content)}
    if mutant.file == TOKENIZER:
        values["tokenizer"]["sha256"] = sha256
    (folder / MANIFEST).write_text(json.dumps(values), encoding="utf-8")


def sweep(name: str, folder: Path, scratch: Path) -> list[Mutant]:
    """Every value sweep of a format's own files."""
    if name == "onnx":
        files = ("model.onnx", "encoder.onnx", "decoder.onnx", "speculative.onnx")
        return [mutant for file in files for mutant in onnx_mutants(folder / file)]
    if name == "ctranslate2":
        own = list(ctranslate2_mutants(folder / "model.bin"))
        return own + list(json_mutants(folder / "config.json"))
    if name == "gguf":
        return list(gguf_mutants(folder / "model.gguf"))
    if name == "torchscript":
        return list(torchscript_mutants(folder / "model.ts"))
    if name == "manifest":
        return list(json_mutants(folder / MANIFEST))
    if name == "tokenizer":
        return list(json_mutants(folder / TOKENIZER, skip=_ALIKE)) + list(
            _vocabulary_mutants(folder / TOKENIZER)
        )
    assert name == "model"
    names = ("config.json", "generation_config.json", "training.json", "tokenizer_config.json")
    found = [m for n in names if (folder / n).exists() for m in json_mutants(folder / n)]
    return found + list(safetensors_mutants(folder / "model.safetensors", scratch))


def _vocabulary_mutants(path: Path) -> Iterator[Mutant]:
    """The first pieces and added tokens; the whole vocabulary has thousands that are alike."""
    for mutant in json_mutants(path):
        if any(f" {place}.0" in mutant.name for place in ("model.vocab", "added_tokens")):
            yield mutant


def random_files(name: str, folder: Path) -> Sequence[Path]:
    """The files that random edits are made in."""
    own = {
        "onnx": ("model.onnx", "decoder.onnx", "encoder.onnx"),
        "ctranslate2": ("model.bin",),
        "gguf": ("model.gguf",),
        "torchscript": ("model.ts",),
        "manifest": (MANIFEST,),
        "tokenizer": (TOKENIZER,),
        "model": ("config.json", "model.safetensors", TOKENIZER),
    }
    return [folder / file for file in own[name]]


def choose(name: str, folder: Path, scratch: Path, count: int, seed: int = 0) -> list[Mutant]:
    """Half sweeps, drawn by seed, and half random edits; all sweeps (or 6,000) if `count` is 0.

    Cases named in EDGE_HOSTILE_CASES (one a line) are tried instead of drawn ones.
    """
    swept = sweep(name, folder, scratch)
    files = random_files(name, folder)
    if wanted := os.environ.get("EDGE_HOSTILE_CASES"):
        chosen = set(wanted.splitlines())
        pool = [*swept, *(random_bytes(f, n) for f in files for n in range(10_000))]
        return [mutant for mutant in pool if mutant.name in chosen]
    chance = random.Random(f"{name} {seed}")
    chance.shuffle(swept)
    drawn = swept[: count // 2 if count else _MOST_SWEEPS]
    rest = max(1000, 2000 - len(drawn)) if not count else count - len(drawn)
    return [*drawn, *(random_bytes(files[n % len(files)], seed + n) for n in range(rest))]
