"""Runs the main kernels once each between cudaProfilerStart and cudaProfilerStop, for `ncu --profile-from-start off`.

Each has run before, so that compilation and first-call work are not profiled. The most valuable come first: ncu keeps
what it has if it is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.attention import CUDA_SHAPES, ours
from benchmarks.attention_peers import make_problem
from benchmarks.contrastive_peers import Step
from benchmarks.contrastive_peers import ours as contrastive
from benchmarks.log_mel import noise
from reserve_kernels import BF16AdamW, log_mel_spectrogram


def attention(shape: str) -> Callable[[], object]:
    return ours("triton")(make_problem(CUDA_SHAPES[shape], "cuda", torch.bfloat16)).call(backward=True)


def optimizer() -> Callable[[], object]:
    """One step of 100 million parameters."""
    parameter = torch.nn.Parameter(torch.randn(100_000_000, device="cuda"))
    parameter.grad = torch.randn_like(parameter)
    return BF16AdamW([parameter], 1e-4).step


def main() -> None:
    waveform = noise(512, "cuda")
    jobs: dict[str, Callable[[], Callable[[], object]]] = {
        "attention, joint": lambda: attention("joint"),
        "log_mel": lambda: lambda: log_mel_spectrogram(waveform, backend="cuda"),
        "optimizer": optimizer,
        "attention, vision": lambda: attention("vision"),
        "attention, audio": lambda: attention("audio"),
        "contrastive": lambda: Step(contrastive, (4096, 4096, 768), torch.bfloat16, "cuda"),
    }
    for name, make in jobs.items():
        call = make()
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
        print(f"profiled {name}", flush=True)


if __name__ == "__main__":
    main()
