"""Describes the machine and measures its limits and the memory that a call takes."""

from __future__ import annotations

import functools
import importlib.metadata
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleaved import median_seconds

GPU_FIELDS = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "temperature.gpu")
VERSIONS = ["torch", "triton", "numpy", "librosa", "torchaudio", "xformers", "open_clip_torch", "av"]
VERSIONS += ["flash-attn", "flash-attn-3", "flash-attn-4"]
VERSIONS += ["torchcodec", "opencv-python-headless", "nvidia-dali-cuda130"]


def is_changed(repository: Path) -> bool | None:
    """Whether tracked files differ from the commit; None if git cannot tell.

    Results and the pages that show them do not count: a run writes one result after the other.
    """
    excluded = [f":(exclude){path}" for path in ("benchmarks/results", "docs", "README.md")]
    command = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", *excluded]
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return bool(done.stdout)


def describe() -> dict[str, Any]:
    """The GPU with driver and clocks if there is one, the versions of what is compared, and how idle threads wait."""
    return {
        "gpu": _gpu(),
        "versions": {name: version for name in VERSIONS if (version := installed_version(name))},
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
    }


def _gpu() -> dict[str, str] | None:
    """nvidia-smi's description of the first GPU; its name alone without that tool."""
    if not torch.cuda.is_available():
        return None
    if shutil.which("nvidia-smi") is None:
        return {"name": torch.cuda.get_device_name()}
    query = ["nvidia-smi", "--id=0", "--format=csv,noheader", f"--query-gpu={','.join(GPU_FIELDS)}"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False).stdout.strip()
    values = [value.strip() for value in answer.split(",")]
    return dict(zip(GPU_FIELDS, values, strict=False)) | {"name": torch.cuda.get_device_name()}


def installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def cpu_limits(threads: int, rounds: int = 7) -> dict[str, float]:
    """Bytes/s of a copy (read and written) and FLOP/s of a float32 matrix product, with `threads` threads."""
    with torch_threads(threads):
        source = torch.randn(1 << 24)
        target = torch.empty_like(source)
        square = torch.randn(1536, 1536)
        copy = median_seconds(lambda: target.copy_(source), rounds)
        product = median_seconds(lambda: square @ square, rounds)
    return {"copy_bytes_per_s": 2 * 4 * source.numel() / copy, "matmul_flops_per_s": 2 * 1536**3 / product}


def threads_label(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def cpu_label(threads: int) -> str:
    """The device of a result on the CPU."""
    return f"CPU, {threads_label(threads)}"


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch, which our CPU ops follow, and NumPy's BLAS with `threads` threads."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # More BLAS threads than these would spin when idle and slow the others down.
        with threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _status(line: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(row.split()[1]) * 1024 for row in status if row.startswith(line))


def _peak(make: Callable[..., Callable[[], object]], args: tuple[Any, ...], threads: int) -> int:
    torch.set_num_threads(threads)
    call = make(*args)
    with open("/proc/self/clear_refs", "w") as references:
        references.write("5")
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def peak_extra_bytes(make: Callable[..., Callable[[], object]], args: tuple[Any, ...], threads: int) -> int:
    """Growth of the peak resident set during the call that `make(*args)` returns, on the CPU, in a process of its own.

    `make` must be a module-level function; what it allocates itself does not count. Linux only.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_peak, make, args, threads).result()
