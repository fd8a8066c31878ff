"""Calls captured in a CUDA graph, so that what is timed is the GPU and not the launches."""

from __future__ import annotations

from collections.abc import Callable

import torch

CALLS = 10
"""Calls in one graph: waiting for its end costs little beside so many."""


def captured(call: Callable[[], object]) -> Callable[[], None]:
    """A function that runs `call` CALLS times on the GPU and waits for it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()

    def run() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return run


def cuda_limits(rounds: int = 7) -> dict[str, float]:
    """What this GPU does: bytes/s of a copy (read and written), FLOP/s of a bfloat16 matrix product."""
    from benchmarks.interleaved import median_seconds

    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    copy = median_seconds(captured(lambda: target.copy_(source)), rounds) / CALLS
    product = median_seconds(captured(lambda: square @ square), rounds) / CALLS
    return {"copy_bytes_per_s": 2 * 4 * source.numel() / copy, "matmul_flops_per_s": 2 * 8192**3 / product}
