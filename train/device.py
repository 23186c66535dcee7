"""Where training runs and in which precision."""

from __future__ import annotations

from dataclasses import dataclass

from edge.runtime.errors import UsageError


@dataclass(frozen=True)
class Machine:
    """device: cpu, cuda or mps; precision: bf16 (autocast over fp32 weights) or fp32."""

    device: str
    precision: str


def choose_machine(device: str = "auto", precision: str = "auto") -> Machine:
    """The device and precision to use; never fp16, in which T5's activations overflow.

    Raises:
        UsageError: the device that was asked for isn't there, or can't compute in bf16.
    """
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, present in there.items() if present)
    if not there[device]:
        present = ", ".join(name for name, is_there in there.items() if is_there)
        raise UsageError(f"--device {device}: there is none here; there is {present}")
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return Machine(device, precision)


def has_fast_bf16(device: str) -> bool:
    """Whether bf16 is faster than fp32 there: matrix units for it, not an emulation.

    On a processor with AVX512-BF16 a step of the tiny shape took 0.7 of its time in fp32.
    """
    import torch

    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False
