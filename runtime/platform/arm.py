"""Names and instruction sets of Arm processors, under Linux's names.

Linux reports numbers of implementer and part (register MIDR_EL1) instead of a name. The numbers are
those of its arch/arm64/include/asm/cputype.h. macOS reports what sysctl(3) prints.
"""

from __future__ import annotations

_IMPLEMENTERS = {
    "0x41": "Arm",
    "0x46": "Fujitsu",
    "0x48": "HiSilicon",
    "0x4e": "NVIDIA",
    "0x51": "Qualcomm",
    "0x61": "Apple",
    "0x6d": "Microsoft",
    "0xc0": "Ampere",
}
_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0d"): "Cortex-A77",
    ("0x41", "0xd0e"): "Cortex-A76AE",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4b"): "Cortex-A78C",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd80"): "Cortex-A520",
    ("0x41", "0xd81"): "Cortex-A720",
    ("0x41", "0xd84"): "Neoverse-V3",
    ("0x41", "0xd8e"): "Neoverse-N3",
    ("0x46", "0x001"): "Fujitsu A64FX",
    ("0x48", "0xd01"): "HiSilicon TaiShan-v110",
    ("0x51", "0x001"): "Qualcomm Oryon",
    ("0x61", "0x022"): "Apple M1",
    ("0x61", "0x023"): "Apple M1",
    ("0xc0", "0xac3"): "Ampere-1",
    ("0xc0", "0xac4"): "Ampere-1a",
}
# Names after "hw.optional." of sysctl → Linux's names.
_MACOS = {
    "AdvSIMD": ("asimd",),
    "neon": ("asimd",),
    "arm.AdvSIMD": ("asimd",),
    "arm.FEAT_FP16": ("fphp", "asimdhp"),
    "arm.FEAT_DotProd": ("asimddp",),
    "arm.FEAT_BF16": ("bf16",),
    "arm.FEAT_I8MM": ("i8mm",),
    "arm.FEAT_SME": ("sme",),
    "arm.FEAT_SME2": ("sme2",),
}
_NAME = "machdep.cpu.brand_string"
# Arguments of sysctl for `from_sysctl`.
SYSCTL_NAMES = (_NAME, "hw.optional")


def core_name(implementer: str, part: str) -> str:
    """Name of a core, such as "Cortex-A76", from its numbers, such as "0x41" and "0xd0b".

    A core that is not in the table is named by its numbers.
    """
    known = _PARTS.get((implementer, part))
    return known or f"{_IMPLEMENTERS.get(implementer, f'Arm {implementer}')} part {part}"


def from_sysctl(text: str) -> tuple[str, frozenset[str]]:
    """Name and instruction sets from the lines "name: value" that macOS's sysctl prints."""
    values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    flags = {
        flag
        for name, names in _MACOS.items()
        if values.get(f"hw.optional.{name}", "0").strip() == "1"
        for flag in names
    }
    return values.get(_NAME, "").strip(), frozenset(flags)
