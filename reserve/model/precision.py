"""The precision of a run's activations, from train.precision and the device."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from reserve.config import TrainConfig

CPU_INFO = Path("/proc/cpuinfo")
BF16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Their names in CPU_INFO, on x86 and Arm."""


def training_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """What activations and matrix products are computed in: torch.bfloat16 or torch.float32.

    "auto" is bfloat16 on a GPU and on a CPU with instructions for it. A CPU without them emulates it, which is slower
    than float32.
    """
    if config.precision != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[config.precision]
    return torch.bfloat16 if device.type == "cuda" or cpu_has_bf16() else torch.float32


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The context of a forward pass in `training_dtype`. Parameters stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=training_dtype(config, device) == torch.bfloat16)


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether this machine's CPU lists instructions for bfloat16; False where that cannot be read, as on macOS."""
    try:
        lines = CPU_INFO.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not BF16_INSTRUCTIONS.isdisjoint(flags.split())
