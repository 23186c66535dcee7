"""Energy that the processor's packages used, from Linux' powercap counters (RAPL).

The counters are those of whole packages: other processes and idle cores are included. Since 2020
(CVE-2020-8694) only root may read them on most systems.
"""

from __future__ import annotations

from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules of all packages since the meter was made."""

    def __init__(self, folder: Path = _POWERCAP) -> None:
        """Read the counters for the first time.

        Args:
            folder: Where the counters are; each zone is a folder with name, energy_uj and
                max_energy_range_uj (Documentation/power/powercap/powercap.rst of Linux).
        """
        self._zones = sorted(zone for zone in folder.glob("*-rapl:*") if _is_package(zone))
        self._started = [_read(zone, "energy_uj") for zone in self._zones]

    def joules(self) -> float | None:
        """The energy used since the start; None if a counter can't be read, or there is none.

        A counter may start again from 0 once: read it within minutes.
        """
        total = 0
        for zone, before in zip(self._zones, self._started, strict=True):
            after, modulus = _read(zone, "energy_uj"), _read(zone, "max_energy_range_uj")
            if before is None or after is None or (after < before and modulus is None):
                return None
            total += after - before + (modulus or 0) * (after < before)
        return total / 1e6 if self._zones else None


def _is_package(zone: Path) -> bool:
    """Whether a zone is a package; its parts, and the platform, would count twice."""
    try:
        return (zone / "name").read_text(encoding="utf-8").startswith("package-")
    except OSError:
        return False


def _read(zone: Path, name: str) -> int | None:
    try:
        return int((zone / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
