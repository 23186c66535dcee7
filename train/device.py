"""Where training runs and in which precision."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.runtime.errors import UsageError
from edge.runtime.registry import missing_extra

if TYPE_CHECKING:
    from edge.train.config import TrainConfig
    from edge.train.distributed import Processes


@dataclass(frozen=True)
class DeviceConfig:
    """device: cpu, cuda or mps; precision: bf16 (autocast over fp32 weights) or fp32."""

    device: str
    precision: str


def choose_machine(device: str = "auto", precision: str = "auto") -> DeviceConfig:
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
    return DeviceConfig(device, precision)


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


def check_processes(config: TrainConfig, machine: DeviceConfig, processes: Processes) -> None:
    """Refuse what several processes can't do together.

    Raises:
        UsageError: too few rows or GPUs for them, or a device that they can't share.
    """
    count = processes.count
    if count == 1:
        return
    if machine.device == "mps":
        raise UsageError(f"{count} processes can't share Apple's GPU; give --device cpu, or one")
    if machine.device == "cuda":
        import torch

        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", count)), torch.cuda.device_count()
        if here > gpus:
            raise UsageError(f"{here} processes here and {gpus} GPUs: each process needs its own")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if config.tokens_per_step is None and (config.batch_size or count) < count:
        raise UsageError(
            f"--batch-size {config.batch_size} is of all {count} processes together, and leaves"
            f" some without a row; give {count} or more"
        )


def check_libraries(config: TrainConfig, machine: DeviceConfig) -> None:
    """Refuse early what needs a GPU or a library that isn't here.

    Raises:
        UsageError: bitsandbytes' 4- and 8-bit kernels need CUDA; says what to use instead.
        MissingExtraError: a library is not installed; says which extra brings it.
    """
    wanted = []
    if config.method == "qlora":
        wanted.append(("--method qlora", "--method lora, with --preset low-memory to save memory"))
    if config.optimizer.endswith("8bit"):
        wanted.append((f"--optimizer {config.optimizer}", "--optimizer adafactor"))
    for option, instead in wanted:
        if machine.device != "cuda":
            raise UsageError(
                f"{option} needs a CUDA GPU, for bitsandbytes' kernels, and this run is on"
                f" {machine.device}; use {instead}"
            )
        if importlib.util.find_spec("bitsandbytes") is None:
            raise missing_extra(option, "bitsandbytes", "qlora")
    if config.method != "full" and importlib.util.find_spec("peft") is None:
        raise missing_extra(f"--method {config.method}", "peft", "train")
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise missing_extra("--tensorboard", "tensorboard", "tensorboard")
