"""The device and precision of a training run, and checks of what it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.runtime.errors import UsageError
from edge.runtime.registry import require

if TYPE_CHECKING:
    from edge.train.config import TrainConfig
    from edge.train.distributed import Processes


@dataclass(frozen=True)
class DeviceConfig:
    """device: cpu, cuda or mps; precision: bf16 (autocast over fp32 weights) or fp32."""

    device: str
    precision: str


def choose_device(device: str = "auto", precision: str = "auto") -> DeviceConfig:
    """Resolve "auto" to a device and a precision of this machine.

    Never fp16, in which T5's activations overflow, and never bf16 on a GPU that emulates it.

    Raises:
        UsageError: The device is not available, or it is a CUDA GPU that only emulates bf16.
    """
    import torch

    is_available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    available = [name for name, found in is_available.items() if found]
    if device == "auto":
        device = available[0]
    if device not in available:
        raise UsageError(f"--device {device}: not available; available: {', '.join(available)}")
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    if precision == "bf16" and device == "cuda" and not has_fast_bf16(device):
        major, minor = torch.cuda.get_device_capability()
        raise UsageError(
            f"--precision bf16: {torch.cuda.get_device_name()} (compute capability {major}.{minor})"
            " only emulates bf16, more slowly than it computes fp32; use --precision fp32"
        )
    return DeviceConfig(device, precision)


def has_fast_bf16(device: str) -> bool:
    """Whether bf16 is faster than fp32: the device has matrix units for it and doesn't emulate it.

    On a CPU with AVX512-BF16, a step of the tiny shape takes 0.7 of its fp32 time. MPS has bf16
    since macOS 14.
    """
    import torch

    if device == "cuda":
        # Not torch.cuda.is_bf16_supported, which is also true of GPUs that emulate bf16.
        return tuple(torch.cuda.get_device_capability()) >= (8, 0)
    if device == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return device == "mps" and bool(torch.backends.mps.is_macos_or_newer(14, 0))


def padding_multiple(device: str) -> int:
    """What the widths of batches are rounded up to: 1, or 16 on MPS.

    MPS compiles a graph and caches memory for every shape: with few widths both stay small.
    """
    return 16 if device == "mps" else 1


def keeps_memory_per_shape(device: str) -> bool:
    """Whether the device's allocator caches memory for every shape of batch: that of MPS does.

    It then grows until the machine swaps, unless the cache is released after each batch.
    """
    return device == "mps"


def release_memory_per_shape(device: str) -> None:
    """Release what the allocator has cached, on a device that `keeps_memory_per_shape`."""
    if keeps_memory_per_shape(device):
        import torch

        torch.mps.empty_cache()


def check_processes(config: TrainConfig, device_config: DeviceConfig, processes: Processes) -> None:
    """Check that several processes can train together, and give each its GPU.

    Raises:
        UsageError: There are too few rows or GPUs for them, or the device can't be shared.
    """
    count = processes.world_size
    if count == 1:
        return
    if device_config.device == "mps":
        raise UsageError(
            f"{count} processes can't share Apple's GPU; use --device cpu, or a single process"
        )
    if device_config.device == "cuda":
        import torch

        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", count)), torch.cuda.device_count()
        if here > gpus:
            raise UsageError(
                f"{here} processes were started on a machine with {gpus} GPUs; start at most one"
                " per GPU"
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if config.tokens_per_step is None and (config.batch_size or count) < count:
        raise UsageError(
            f"--batch-size {config.batch_size} is the total of all {count} processes and leaves"
            f" some without a row; use {count} or more"
        )


def check_libraries(config: TrainConfig, device_config: DeviceConfig) -> None:
    """Check early that the libraries and the GPU that `config` needs are there.

    Raises:
        UsageError: bitsandbytes' 4- and 8-bit kernels need CUDA; the message names an alternative.
        MissingExtraError: A library is not installed; the message names the extra to install.
    """
    wanted = []
    if config.method == "qlora":
        wanted.append(("--method qlora", "--method lora, with --preset low-memory to save memory"))
    if config.optimizer.endswith("8bit"):
        wanted.append((f"--optimizer {config.optimizer}", "--optimizer adafactor"))
    for option, alternative in wanted:
        if device_config.device != "cuda":
            raise UsageError(
                f"{option} needs a CUDA GPU, for bitsandbytes' kernels, but the device is"
                f" {device_config.device}; use {alternative}"
            )
        require(option, "qlora", "bitsandbytes")
    if config.method != "full":
        require(f"--method {config.method}", "train", "peft")
    if config.tensorboard:
        require("--tensorboard", "tensorboard", "tensorboard")


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Set torch's thread count inside the `with` block; None leaves it as it is."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
