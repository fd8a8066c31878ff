"""Timing on a GPU: by events, with many calls in a CUDA graph and inputs that are not in the cache."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

import torch

from benchmarks.interleaved import Call, EventClock, median_seconds

GRAPH_SECONDS = 2e-3
"""A graph runs about this long or longer, so that launching it costs little."""


def card(name: str) -> str:
    """The short form of a GPU's name, by which results are told apart: "H100" for "NVIDIA H100 80GB HBM3"."""
    found = re.search(r"\b[A-Z]{1,2}\d{2,3}S?\b", name)
    return found.group() if found else name.removeprefix("NVIDIA ")


def cuda_label() -> str:
    """The device of a result on the current GPU; see `machine.cpu_label` for the CPU."""
    return card(torch.cuda.get_device_name())


def input_sets(bytes_of_one: int) -> int:
    """How many sets of inputs to rotate through so that none is still in the L2 cache at its next use."""
    size = torch.cuda.get_device_properties(0).L2_cache_size
    return min(16, 1 + -(-2 * size // max(bytes_of_one, 1)))


def captured(calls: Sequence[Call]) -> tuple[Call, int, bool]:
    """A function that runs `calls` repeatedly for about GRAPH_SECONDS, how many calls that is, and whether in a graph.

    Calls that make the host wait cannot be captured, so that the function runs them eagerly. This is determined
    beforehand: a failed capture leaves PyTorch's allocator and random number generator in a broken state.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
        once = EventClock(flush=False)
        seconds = min(once(call) for call in calls)
        waits = host_waits(calls[0])
    torch.cuda.current_stream().wait_stream(stream)
    turns = max(1, min(256, round(GRAPH_SECONDS / seconds / len(calls))))

    def run() -> None:
        for _ in range(turns):
            for call in calls:
                call()

    if waits:
        return run, turns * len(calls), False
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay(held: Sequence[Call] = tuple(calls)) -> None:
        # `held`: the graph reads the tensors that the calls own, and does not keep them alive.
        graph.replay()

    return replay, turns * len(calls), True


def host_waits(call: Call) -> bool:
    """Whether `call`, which has run before, makes the host wait for the GPU, as far as PyTorch detects it."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def peak_extra_bytes(call: Call) -> int:
    """Growth of the allocator's peak in the second call: the first one compiles, tunes and fills caches."""
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


@functools.cache
def cuda_limits(dtype: torch.dtype = torch.bfloat16, rounds: int = 15) -> dict[str, float]:
    """Bytes/s of a copy (read and written) and FLOP/s of a matrix product of random numbers in `dtype`.

    float32 products do not use tf32: their rate is that of arithmetic outside the tensor cores.
    """
    generator = torch.Generator("cuda").manual_seed(0)
    source = torch.randn(1 << 28, generator=generator, device="cuda")
    target = torch.empty_like(source)
    square = torch.randn(8192, 8192, generator=generator, device="cuda").to(dtype)
    out = torch.empty_like(square)
    clock = EventClock(flush=False)
    timed: list[Callable[[], object]] = [lambda: target.copy_(source), lambda: torch.mm(square, square, out=out)]
    for call in timed:
        call()
    copy, product = (median_seconds(call, rounds, clock) for call in timed)
    return {"copy_bytes_per_s": 2 * 4 * source.numel() / copy, "matmul_flops_per_s": 2 * 8192**3 / product}
