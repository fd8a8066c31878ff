"""How much memory a rank takes: on its GPU, in its process, and in the processes that load its data."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch


def memory_figures(device: torch.device) -> dict[str, float]:
    """Memory now, in 10^9 bytes, by name of the metric.

    `peak_memory_gb` is `peak_memory`. On a GPU `memory_gb` is what tensors take, `reserved_gb` what PyTorch holds for
    them, and `alloc_retries` counts how often it had to give memory back to find room: fragmentation. `host_memory_gb`
    is what this process has resident, `loader_memory_gb` what the processes that load its data have together; pages
    that processes share count in each. Where the system does not say (no /proc), the last two are left out.
    """
    figures = {"peak_memory_gb": peak_memory_gb(device)}
    if device.type == "cuda":
        figures["memory_gb"] = torch.cuda.memory_allocated(device) / 1e9
        figures["reserved_gb"] = torch.cuda.memory_reserved(device) / 1e9
        figures["alloc_retries"] = torch.cuda.memory_stats(device).get("num_alloc_retries", 0)
    own = resident_bytes(os.getpid())
    if own:
        figures["host_memory_gb"] = own / 1e9
        # A loader's processes are daemons, unlike others that a run may start.
        loaders = [child.pid for child in multiprocessing.active_children() if child.daemon]
        if loaders:
            figures["loader_memory_gb"] = sum(resident_bytes(pid) for pid in loaders if pid is not None) / 1e9
    return figures


def peak_memory_gb(device: torch.device) -> float:
    """The most memory in use so far: tensors on a GPU, the whole process (resident) on a CPU; in 10^9 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def resident_bytes(process: int) -> int:
    """The resident memory of a process; 0 where the system does not say, or the process has ended."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1]) * resource.getpagesize()
    return 0
