"""What the processor must have: one clear line where it has not, right answers where it has."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from edge.runtime import load
from edge.runtime.engines.gguf.library import check_instructions
from edge.runtime.errors import UnsupportedError
from edge.runtime.platform import cpu as processor

EMULATOR = shutil.which("qemu-x86_64")
TEXTS = ["where was um was the bridge built?", "who painted the portrait?"]
# Haswell of 2013 has AVX2, but neither AVX-512 nor VNNI; Sandy Bridge of 2011 has AVX only.
OLD_FLAGS = {
    "Haswell": "pni ssse3 avx avx2 f16c fma bmi2",
    "SandyBridge": "pni ssse3 avx",
}
ANSWER = """
import json, sys
from pathlib import Path
from edge.runtime import load
from edge.runtime.platform import cpu as processor

folder, processor._CPU_INFO, texts = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
with load(folder) as model:
    answers = model.generate(texts, max_new_tokens=12)
print(json.dumps([[answer.text, answer.score] for answer in answers]))
"""


@pytest.mark.parametrize("version", ["1.20.1", "1.21.0", "0.9", "1.9.0"])
@pytest.mark.skipif(platform.machine() != "x86_64", reason="Arm needs 1.23: see test_arm.py")
def test_an_onnx_runtime_that_is_too_old(
    version: str,
    artifacts: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_refused: Callable[..., str],
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    line = assert_refused("run", artifacts / "onnx-int8", "text")
    assert f"ONNX Runtime {version} is too old" in line
    assert "pip install -U 'onnxruntime>=1.22'" in line


@pytest.mark.parametrize("version", ["1.23.0", "1.100.1", "2.0.0", "1.31.0.dev20260101", "unknown"])
def test_an_onnx_runtime_that_is_new_enough(
    version: str, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    load(artifacts / "onnx-int8").close()


def test_a_library_built_for_another_processor() -> None:
    built = ["avx", "avx2", "avx512f", "avx512_vnni"]
    with pytest.raises(
        UnsupportedError, match="a CPU with avx512f, avx512_vnni, which this CPU lacks"
    ):
        check_instructions(built, OLD_FLAGS["Haswell"].split())
    check_instructions(built, [*built, "fma"])
    check_instructions(built, [])  # a system that does not tell


def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert 1 <= processor.physical_cores() <= processor.usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(processor, "cpu_affinity", lambda: list(range(8)))
    monkeypatch.setattr(processor, "usable_cores", lambda: 8)
    monkeypatch.setattr(processor, "_TOPOLOGY", tmp_path)
    for core in range(8):
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{core % 4},{core % 4 + 4}\n")
    assert processor.physical_cores() == 4


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "900000 100000"}, 8),
        ("0::/\n", {"cpu.max": "x"}, 8),
        ("0::/user.slice/job\n", {"user.slice/job/cpu.max": "200000 100000"}, 2),
        (
            "0::/user.slice/job\n",
            {"user.slice/cpu.max": "300000 100000", "user.slice/job/cpu.max": "max 100000"},
            3,
        ),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100"}, 8),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "250", "cpu/cpu.cfs_period_us": "100"}, 3),
        (
            "4:cpuacct,cpu:/docker/abc\n0::/\n",
            {
                "cpu/docker/abc/cpu.cfs_quota_us": "200000\n",
                "cpu/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            "4:cpu:/docker/abc\n",  # in a container, where the mounted root is the group
            {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2,
        ),
    ],
)
def test_the_quota_of_the_own_group_or_a_parent_counts(
    group: str,
    files: dict[str, str],
    cores: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(processor, "cpu_affinity", lambda: list(range(8)))
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(group)
    for name, text in files.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(text)
    assert processor.usable_cores(proc=proc, cgroups=cgroups) == cores


@pytest.mark.slow
@pytest.mark.skipif(EMULATOR is None, reason="qemu-user is not installed")
@pytest.mark.parametrize("model", OLD_FLAGS)
@pytest.mark.parametrize("name", ["onnx-int8", "ctranslate2-int8", "gguf-q8_0"])
def test_an_older_processor_answers_alike_or_refuses(
    name: str, model: str, artifacts: Path, tmp_path: Path
) -> None:
    assert EMULATOR is not None
    cpu_info = tmp_path / "cpuinfo"  # the emulator shows the real processor's
    cpu_info.write_text(f"model name : {model}\nflags : {OLD_FLAGS[model]}\n")
    arguments = [str(artifacts / name), str(cpu_info), json.dumps(TEXTS)]
    ended = subprocess.run(
        [EMULATOR, "-cpu", model, sys.executable, "-c", ANSWER, *arguments],
        capture_output=True,
        text=True,
    )
    if "UnsupportedError" in ended.stderr:
        assert name.startswith("gguf")
        assert "llama-cpp-python was built for a processor with" in ended.stderr
        return
    assert ended.returncode == 0, ended.stderr
    with load(artifacts / name) as here:
        expected = here.generate(TEXTS, max_new_tokens=12)
    for answer, (text, score) in zip(expected, json.loads(ended.stdout), strict=True):
        assert text == answer.text
        assert score == pytest.approx(answer.score, abs=0.05)
