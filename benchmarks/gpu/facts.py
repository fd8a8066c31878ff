"""Facts of a GPU machine: versions, back ends, the rates of its GPU and host. Writes facts.json after each of them."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.cuda import EventClock, cuda_limits
from benchmarks.interleaved import median_seconds
from benchmarks.machine import describe, installed_version
from reserve_kernels import backends, native


def ops() -> list[str]:
    """Each op's back ends on the GPU in bfloat16, and why others cannot run."""
    return [str(row) for row in backends(torch.bfloat16)]


def host() -> dict[str, Any]:
    """The host's cores, and microseconds to launch a small op and to run a small Python loop."""
    x = torch.zeros(1, device="cuda")
    calls = 5000

    def launch() -> None:
        for _ in range(calls):
            x.add_(1)

    def loop() -> None:
        sum(i * i for i in range(100_000))

    launch()
    torch.cuda.synchronize()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "launch_us": median_seconds(launch, 5) / calls * 1e6,
        "python_loop_ms": median_seconds(loop, 5) * 1e3,
    }


def mixed_addmm() -> dict[str, Any]:
    """Whether a product of bfloat16 matrices can be added to a float32 one in one call, and its seconds."""
    a, b = (torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    total = torch.randn(4096, 4096, device="cuda")
    clock, found = EventClock(), {}
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "mm bfloat16": lambda: torch.mm(a, b),
        "mm to float32": lambda: torch.mm(a, b, out_dtype=torch.float32),
        "addmm to float32": lambda: torch.addmm(total, a, b, out_dtype=torch.float32),
        "addmm to float32, in place": lambda: torch.addmm(total, a, b, out_dtype=torch.float32, out=total),
        "mm to float32 and add_": lambda: total.add_(torch.mm(a, b, out_dtype=torch.float32)),
    }
    for name, call in calls.items():
        try:
            call()
            found[name] = f"{median_seconds(call, 9, clock) * 1e6:.0f} us"
        except Exception as error:  # what a version of PyTorch does not have fails in many ways
            found[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return found


FACTS: dict[str, Callable[[], Any]] = {
    "machine": describe,
    "libraries": lambda: {name: installed_version(name) for name in ("flash-attn", "flash-attn-4", "xformers")},
    "properties": lambda: str(torch.cuda.get_device_properties(0)),
    "native": native.describe,
    "backends": ops,
    "bfloat16": cuda_limits,
    "host": host,
    "addmm": mixed_addmm,
    "float32": lambda: cuda_limits(torch.float32, 5),
    "memory": lambda: torch.cuda.mem_get_info(),
}


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if a fact could not be determined."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.facts", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    found, failed = {}, 0
    for name, fact in FACTS.items():
        start = time.perf_counter()
        try:
            found[name] = fact()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
            failed = 1
        print(f"{name} ({time.perf_counter() - start:.1f} s): {found[name]}", flush=True)
        (out / "facts.json").write_text(json.dumps(found, indent=1, default=str) + "\n", "utf-8")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
