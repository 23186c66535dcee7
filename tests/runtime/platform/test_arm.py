"""Arm processors: names and instruction sets, and emulators that hide them."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from edge.runtime.engines.gguf.library import check_instructions
from edge.runtime.engines.onnx.library import check_cores, check_version
from edge.runtime.errors import UnsupportedError
from edge.runtime.platform import cpu as processor
from edge.runtime.platform.arm import from_sysctl

PI_5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

Revision\t: c04170
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
BIG_LITTLE = """processor : 0
Features : fp asimd crc32
CPU implementer : 0x41
CPU part : 0xd03

processor : 1
Features : fp asimd crc32
CPU implementer : 0x41
CPU part : 0xd03

processor : 2
Features : fp asimd crc32
CPU implementer : 0x41
CPU part : 0xd08
"""
X86 = """processor : 0
vendor_id : GenuineIntel
model name : Intel(R) Xeon(R) Processor
flags : fpu sse2 avx2 avx512f avx512_vnni
"""
M1 = """machdep.cpu.brand_string: Apple M1
hw.optional.floatingpoint: 1
hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_BF16: 0
hw.optional.arm.FEAT_I8MM: 0
"""


@pytest.mark.parametrize(
    ("text", "name", "features"),
    [
        (PI_5, "Cortex-A76", {"asimd", "asimdhp", "asimddp"}),
        (BIG_LITTLE, "Cortex-A53 + Cortex-A72", {"asimd"}),
        (BIG_LITTLE.replace("0xd08", "0xfff"), "Cortex-A53 + Arm part 0xfff", {"asimd"}),
        (PI_5.replace("0x41", "0x99"), "Arm 0x99 part 0xd0b", {"asimd", "asimdhp", "asimddp"}),
        (X86, "Intel(R) Xeon(R) Processor", {"avx2", "avx512_vnni"}),
        ("", "", set()),
    ],
)
def test_name_and_instruction_sets_on_linux(text: str, name: str, features: set[str]) -> None:
    found, flags = processor.parse_cpu_info(text)
    assert found == name
    known = {"asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "avx2", "avx512_vnni"}
    assert flags & known == features


def test_name_and_instruction_sets_on_a_mac() -> None:
    assert from_sysctl(M1) == ("Apple M1", {"asimd", "asimddp", "fphp", "asimdhp"})
    m2 = M1.replace("M1", "M2").replace(": 0", ": 1")
    assert from_sysctl(m2)[1] - from_sysctl(M1)[1] == {"bf16", "i8mm"}
    assert from_sysctl("") == ("", frozenset())


@pytest.mark.parametrize(
    ("text", "machine", "hidden"),
    [
        (PI_5, "aarch64", False),
        (X86, "aarch64", True),
        ("", "aarch64", True),
        (X86, "x86_64", False),
    ],
)
def test_an_emulator_that_shows_an_x86_cpu(
    text: str, machine: str, hidden: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "cpuinfo")
    here = os.uname()
    names = os.uname_result((here.sysname, here.nodename, here.release, here.version, machine))
    monkeypatch.setattr(os, "uname", lambda: names)
    assert processor.hides_arm_cores() == hidden
    found = processor.cpu_info.__wrapped__()
    assert found == (("", frozenset()) if hidden else processor.parse_cpu_info(text))


@pytest.mark.parametrize("version", ["1.28.0", "1.31.1", "2.0.0"])
def test_an_onnx_runtime_that_crashes_without_arm_cores(version: str) -> None:
    with pytest.raises(UnsupportedError, match=f"ONNX Runtime {version} would crash here"):
        check_cores(version)


@pytest.mark.parametrize("version", ["1.22.1", "1.27.0", ""])
def test_an_onnx_runtime_that_runs_without_arm_cores(version: str) -> None:
    check_cores(version)


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_an_onnx_runtime_without_8_bit_products_on_arm(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    check_version("1.22.1")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    check_version("1.23.2")
    with pytest.raises(UnsupportedError, match="onnx artifacts need 1.23 or newer"):
        check_version("1.22.1")


def test_a_llama_cpp_that_was_built_for_a_newer_arm_processor() -> None:
    with pytest.raises(UnsupportedError, match="a CPU with i8mm, sve, which this CPU lacks"):
        check_instructions(["asimd", "asimddp", "i8mm", "sve"], processor.parse_cpu_info(PI_5)[1])
    check_instructions(["asimd", "asimddp"], processor.parse_cpu_info(PI_5)[1])
