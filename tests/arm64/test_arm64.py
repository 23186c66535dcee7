"""Emulated Arm64 processors answer as this machine does, with the same library versions."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from arm64_emulation import SCRIPT, EmulatedMachine, emulated_machine
from edge.export.api import publish_all
from edge.export.publish import Publisher, plan_targets
from edge.export.source import SourceModel
from edge.runtime.rows import read_rows

pytestmark = pytest.mark.slow

ROWS = 20
SOME = {"asimddp", "i8mm", "bf16", "sve2", "sme"}


@dataclass(frozen=True)
class Cpu:
    """QEMU's name, that of `cpu_info`, and the instruction sets among `SOME`.

    QEMU takes ten times as long for SVE's longest vectors, so that `max` has none.
    """

    model: str
    name: str
    features: frozenset[str] = frozenset()


CPUS = {
    "cortex-a53": Cpu("cortex-a53", "Cortex-A53"),
    "cortex-a72": Cpu("cortex-a72", "Cortex-A72"),
    "cortex-a76": Cpu("cortex-a76", "Cortex-A76", frozenset({"asimddp"})),
    "neoverse-n2": Cpu(
        "neoverse-n2", "Neoverse-N2", frozenset({"asimddp", "i8mm", "bf16", "sve2"})
    ),
    "max": Cpu(
        "max,sve=off,sme=off", "Arm 0x00 part 0x051", frozenset({"asimddp", "i8mm", "bf16"})
    ),
}
# Format and quantization → largest and mean difference of a token's log-probability, in nats. On
# Arm, float32 sums are added in another order, which can round an input to another integer.
FORMATS = {
    ("onnx", "none"): (1e-3, 1e-5),
    ("onnx", "int8"): (0.1, 3e-3),
    ("onnx", "int4"): (0.2, 3e-3),
    ("ctranslate2", "int8"): (0.1, 3e-3),
}


@dataclass(frozen=True)
class Expected:
    """An artifact, its inputs, and what this machine answers."""

    folder: Path
    texts: list[str]
    found: dict[str, Any]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> EmulatedMachine:
    return emulated_machine(tmp_path_factory.mktemp("arm64"))


@pytest.fixture(scope="module")
def expected(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Expected]:
    rows = read_rows(shared / "data" / "disfl_qa" / "dev.jsonl")
    texts = [row.input for row in itertools.islice(rows, ROWS)]
    publisher = Publisher(SourceModel.open(shared / "models" / "disfl-tiny"))
    made: dict[tuple[str, str], Expected] = {}

    def answers_here(format_name: str, quantization: str) -> Expected:
        if (format_name, quantization) not in made:
            folder = tmp_path_factory.mktemp(f"{format_name}-{quantization}") / "artifact"
            publish_all(publisher, plan_targets(format_name, (quantization,)), folder)
            ended = subprocess.run(
                [sys.executable, str(SCRIPT), str(folder)],
                input=json.dumps({"texts": texts, "targets": None}),
                capture_output=True,
                text=True,
                check=True,
            )
            made[format_name, quantization] = Expected(folder, texts, json.loads(ended.stdout))
        return made[format_name, quantization]

    return answers_here


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(("format_name", "quantization"), FORMATS)
def test_answers_and_log_probabilities_as_on_x86(
    format_name: str,
    quantization: str,
    cpu: str,
    machine: EmulatedMachine,
    expected: Callable[[str, str], Expected],
) -> None:
    here = expected(format_name, quantization)
    targets = here.found["greedy"]
    there = machine.answers(CPUS[cpu].model, here.folder, here.texts, targets)
    assert there["machine"] == "aarch64"
    assert there["cpu"] == CPUS[cpu].name
    assert SOME & set(there["features"]) == CPUS[cpu].features
    assert there["version"] == here.found["version"]
    assert there["greedy"] == here.found["greedy"]
    # Rounding may decide between two beams that are almost as likely.
    others = sum(map(str.__ne__, there["beams"], here.found["beams"]))
    assert others <= (0 if quantization == "none" else 1)
    drafted = there.get("drafts", [])
    assert drafted == there["greedy"][: len(drafted)]
    differences = [
        abs(before - after)
        for pair in zip(here.found["log_probs"], there["log_probs"], strict=True)
        for before, after in zip(*pair, strict=True)
    ]
    largest, mean = max(differences), sum(differences) / len(differences)
    print(
        f"{format_name} {quantization} on {there['cpu']}, version {there['version']}: {ROWS} equal"
        f" answers, log-probabilities differ by at most {largest:.2g}, {mean:.1g} in the mean"
    )
    assert largest < FORMATS[format_name, quantization][0]
    assert mean < FORMATS[format_name, quantization][1]
