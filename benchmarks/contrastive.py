"""contrastive_loss against other implementations: forward and backward, from vectors before normalisation.

Each peer does the whole job (normalisation, temperature, both directions, gradients of both sides and of log_scale),
and its loss and gradients are compared before it is timed. The extra memory of a step is the growth of the peak
resident set in a process of its own on the CPU, and that of the allocator's peak on a GPU.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from benchmarks.contrastive_peers import (
    CPU_PEERS,
    CUDA_PEERS,
    SCALING,
    TWO_THREADS,
    Loss,
    Shape,
    Step,
    cpu_step,
    ours,
)
from benchmarks.contrastive_sigmoid_peers import PEERS as SIGMOID_PEERS
from benchmarks.contrastive_sigmoid_peers import SigmoidLoss, SigmoidStep, sigmoid_cpu_step
from benchmarks.contrastive_sigmoid_peers import ours as sigmoid_ours
from benchmarks.cuda import EventClock, cuda_label, cuda_limits
from benchmarks.cuda import peak_extra_bytes as cuda_peak_extra_bytes
from benchmarks.interleaved import OURS, Contender, Measured, largest_relative_difference, measure, publish, replayed
from benchmarks.machine import cpu_label, cpu_limits, peak_extra_bytes, torch_threads

OP = "contrastive_loss"
CPU_SHAPE: Shape = (8192, 8192, 768)
CPU_SCALING: tuple[Shape, ...] = tuple((n, n, 768) for n in (512, 1024, 2048, 4096))
SIGMOID_FEW: tuple[Shape, ...] = ((16, 16, 768), (128, 128, 768), (256, 256, 768))
"""Where calls take as long as products."""
CUDA_SHAPES: tuple[Shape, ...] = (
    (4096, 4096, 768),
    (16384, 16384, 768),
    (16384, 16384, 1024),
    (6144, 49152, 768),
    (6144, 49152, 1024),
)
CUDA_SCALING: tuple[Shape, ...] = tuple((n, n, 768) for n in (1024, 2048, 8192, 32768))


def _label(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _facts(shape: Shape, itemsize: int, limits: dict[str, float]) -> dict[str, Any]:
    """Facts of a case: FLOPs of the necessary products (logits, and each side's gradient), and the bytes to read each
    vector and write its gradient once.
    """
    pairs, candidates, dim = shape
    counts = {"flops": 6 * pairs * candidates * dim, "bytes": 2 * (pairs + candidates) * dim * itemsize}
    return {"pairs": pairs, "candidates": candidates, "dim": dim, **counts, **limits}


@functools.cache
def on_cpu(shape: Shape, threads: int, rounds: int, peers: tuple[str, ...], memory: bool) -> Measured:
    with torch_threads(threads):

        def build(name: str, loss: Loss) -> Contender:
            step = Step(loss, shape, torch.float32, "cpu")
            result = step.result
            details = {"peak_extra_bytes": peak_extra_bytes(cpu_step, (name, shape), threads)} if memory else {}
            return Contender(step, result, details=details)

        losses = {OURS: ours} | {name: CPU_PEERS[name] for name in peers}
        builders = {name: functools.partial(build, name, loss) for name, loss in losses.items()}
        # Each has run once for its result and takes seconds: no warm-up.
        measured = measure(builders, rounds=rounds, difference=largest_relative_difference, tolerance=1e-4, warm_up=0)
        measured.facts = _facts(shape, 4, cpu_limits(threads)) | {"threads": threads}
    return measured


PEERS = {1: tuple(CPU_PEERS), 2: TWO_THREADS}


@replayed
@pytest.mark.parametrize(("threads", "implementation"), [(n, name) for n in PEERS for name in (OURS, *PEERS[n])])
def test_cpu(benchmark, implementation, threads):
    measured = on_cpu(CPU_SHAPE, threads, 3, PEERS[threads], memory=threads == 1)
    publish(benchmark, measured, implementation, op=OP, device=cpu_label(threads), label=_label(CPU_SHAPE))


@replayed
@pytest.mark.parametrize("shape", CPU_SCALING, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("implementation", [OURS, *SCALING])
def test_cpu_scaling(benchmark, implementation, threads, shape):
    # The smallest take 15 ms, which other work of the machine disturbs easily.
    rounds = max(5, 81 * 512**2 // shape[0] ** 2)
    measured = on_cpu(shape, threads, rounds, SCALING, memory=False)
    publish(benchmark, measured, implementation, op=OP, device=cpu_label(threads), label=_label(shape), case="scaling")


@functools.cache
def sigmoid_on_cpu(shape: Shape, threads: int, rounds: int) -> Measured:
    """Time, and with one thread memory too."""
    with torch_threads(threads):

        def build(name: str, loss: SigmoidLoss) -> Contender:
            step = SigmoidStep(loss, shape, torch.float32, "cpu")
            result = step.result
            memory = threads == 1
            details = {"peak_extra_bytes": peak_extra_bytes(sigmoid_cpu_step, (name, shape), threads)} if memory else {}
            return Contender(step, result, details=details)

        losses = {OURS: sigmoid_ours} | SIGMOID_PEERS
        builders = {name: functools.partial(build, name, loss) for name, loss in losses.items()}
        measured = measure(builders, rounds=rounds, difference=largest_relative_difference, tolerance=1e-4, warm_up=0)
        measured.facts = _facts(shape, 4, cpu_limits(threads)) | {"threads": threads}
    return measured


@replayed
@pytest.mark.parametrize("shape", [*SIGMOID_FEW, *CPU_SCALING, CPU_SHAPE], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("implementation", [OURS, *SIGMOID_PEERS])
def test_cpu_sigmoid(benchmark, implementation, threads, shape):
    measured = sigmoid_on_cpu(shape, threads, min(405, max(3, 81 * 512**2 // shape[0] ** 2)))
    publish(benchmark, measured, implementation, op=OP, device=cpu_label(threads), label=f"sigmoid, {_label(shape)}")


@functools.cache
def on_cuda(shape: Shape) -> Measured:
    """bfloat16; launch overhead included."""

    def build(loss: Loss) -> Contender:
        step = Step(loss, shape, torch.bfloat16, "cuda")
        step()
        details = {"peak_extra_bytes": cuda_peak_extra_bytes(step)}
        return Contender(step, step.result, details=details)

    builders = {name: functools.partial(build, loss) for name, loss in {OURS: ours, **CUDA_PEERS}.items()}
    measured = measure(builders, rounds=21, difference=largest_relative_difference, tolerance=3e-2, clock=EventClock())
    measured.facts = _facts(shape, 2, cuda_limits())
    return measured


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize("shape", CUDA_SHAPES, ids=str)
@pytest.mark.parametrize("implementation", [OURS, *CUDA_PEERS])
def test_cuda(benchmark, implementation, shape):
    publish(benchmark, on_cuda(shape), implementation, op=OP, device=cuda_label(), label=_label(shape))


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize("shape", CUDA_SCALING, ids=str)
@pytest.mark.parametrize("implementation", [OURS, *CUDA_PEERS])
def test_cuda_scaling(benchmark, implementation, shape):
    publish(benchmark, on_cuda(shape), implementation, op=OP, device=cuda_label(), label=_label(shape), case="scaling")
