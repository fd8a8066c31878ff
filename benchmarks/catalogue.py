"""The table of benchmarks: one for each op of `reserve_kernels.registry.OPS`, and those of the model."""

from __future__ import annotations

from typing import NamedTuple

from reserve_kernels.registry import OPS


class Benchmark(NamedTuple):
    """A file of benchmarks/."""

    name: str
    """The file, without its suffix."""
    subject: str
    """What it measures."""
    gpu_share: int
    """Its share of the time that `make gpu` has for benchmarks, relative to the others'; 0 for none on a GPU."""


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        *(Benchmark(op.benchmark, op.name, op.gpu_share) for op in OPS),
        # The file of bias_quick_gelu measures more than that op.
        Benchmark("small_ops", "the model's small ops", 1),
        Benchmark("decoding", "frames and sound of videos", 0),
        Benchmark("training_step", "a whole training step", 2),
    )
}

GPU_BENCHMARKS = sorted((b for b in BENCHMARKS.values() if b.gpu_share), key=lambda b: b.gpu_share, reverse=True)
"""Those that `make gpu` runs, in its order: the largest share first."""
