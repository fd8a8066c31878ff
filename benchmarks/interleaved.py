"""Times an implementation against a peer, call by call in turn, inside pytest-benchmark.

The benchmark's own figures are those of the implementation; those of the peer and the ratio are in `extra_info`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def compare(
    benchmark: Any, ours: Callable[[], object], peer: Callable[[], object], rounds: int, warm_up: int = 3
) -> None:
    """Times `ours`, and `peer` before each of its rounds, after `warm_up` calls of each.

    Adds `peer_*` (seconds) and `speedup` to the result.
    """
    peer_times: list[float] = []

    def run_peer() -> None:
        start = time.perf_counter()
        peer()
        peer_times.append(time.perf_counter() - start)

    for _ in range(warm_up):
        ours()
        peer()
    benchmark.pedantic(ours, setup=run_peer, rounds=rounds, iterations=1)
    if benchmark.stats is None:  # --benchmark-disable
        return
    low, median, high = statistics.quantiles(peer_times, n=4)
    benchmark.extra_info.update(
        peer_median=median,
        peer_quartiles=[low, high],
        peer_min=min(peer_times),
        speedup=median / benchmark.stats.stats.median,
        speedup_of_minima=min(peer_times) / benchmark.stats.stats.min,
    )


def median_seconds(call: Callable[[], object], rounds: int) -> float:
    """Median time of one call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def cpu_limits(rounds: int = 7) -> dict[str, float]:
    """What this machine does with the current number of threads: bytes/s of a copy (read and written), FLOP/s of a
    float32 matrix product.
    """
    source = torch.randn(1 << 24)
    target = torch.empty_like(source)
    square = torch.randn(1024, 1024)
    copy = median_seconds(lambda: target.copy_(source), rounds)
    product = median_seconds(lambda: square @ square, rounds)
    return {"copy_bytes_per_s": 2 * 4 * source.numel() / copy, "matmul_flops_per_s": 2 * 1024**3 / product}
