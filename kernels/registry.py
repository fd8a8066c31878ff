"""The table of ops. Benchmarks, the GPU run, the resource reports, the documentation's build and the tests read it.

To add an op: make its folder with the files of FURNITURE, add a row to OPS, export it in `kernels/__init__.py`, and let
tests/kernels/test_registry.py say what else is missing.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from reserve_kernels.backends import Backends

FURNITURE = ("__init__.py", "ops.py", "availability.py", "reference.py")
"""Files that every op's folder has: the contract and its checks, the registration with torch.library, the table of back
ends, and the op's definition in plain PyTorch. Other back ends are further files of the folder."""


@dataclass(frozen=True)
class Op:
    """One op, and where its files are."""

    name: str
    """Public name in `reserve_kernels`."""
    folder: str
    """In kernels/; docs/kernels/<folder>.md, tests/kernels/test_<folder>.py and test_<folder>_cuda.py go with it."""
    benchmark: str
    """File in benchmarks/, without its suffix."""
    gpu_share: int
    """The benchmark's share of the time that `make gpu` has for benchmarks, relative to the others'."""
    native: bool = False
    """Whether csrc/<folder> has a CPU back end, with the fuzz driver csrc/fuzz/<folder>_fuzz.cpp."""
    native_cuda: bool = False
    """Whether it also has a CUDA back end, whose code the tests run on the CPU."""
    triton: bool = False
    """Whether there are Triton kernels; tests/kernels/triton_cases/<folder>.py lists what their launchers can pick."""

    @property
    def backends(self) -> Backends[Any]:
        """The op's back ends, imported when asked for."""
        return importlib.import_module(f"reserve_kernels.{self.folder}.availability").BACKENDS


OPS = (
    Op("rotary_attention", "attention", benchmark="attention", gpu_share=6, native=True, triton=True),
    Op("contrastive_loss", "contrastive", benchmark="contrastive", gpu_share=3, native=True, triton=True),
    Op("bias_quick_gelu", "quick_gelu", benchmark="small_ops", gpu_share=1, native=True, triton=True),
    Op("log_mel_spectrogram", "log_mel", benchmark="log_mel", gpu_share=1, native=True, native_cuda=True),
    Op("BF16AdamW", "adamw", benchmark="optimizer", gpu_share=1, native=True, native_cuda=True),
)
