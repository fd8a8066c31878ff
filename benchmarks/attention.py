"""rotary_attention against the attention of PyTorch and other libraries, on the model's shapes.

Peers do the whole job, position and mask included, and their result is compared before they are timed; those called
"less" skip the position. FLOPs are those of scores and sums between tokens that attend to each other, without padding
or recomputation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch

from benchmarks.attention_peers import CPU_PEERS, Peer, Problem, Solution, flex_attention, make_problem, padded_sdpa
from benchmarks.cross_attention_peers import CROSS_PEERS, CrossProblem, CrossSolution, make_cross_problem
from benchmarks.cross_attention_peers import ours as cross_ours
from benchmarks.cuda import EventClock, captured, cuda_label, cuda_limits, input_sets, peak_extra_bytes
from benchmarks.interleaved import (
    OURS,
    Contender,
    Measured,
    Missing,
    largest_relative_difference,
    measure,
    publish,
    replayed,
)
from benchmarks.machine import cpu_label, cpu_limits, torch_threads
from reserve_kernels import rotary_attention
from reserve_kernels.attention.availability import BACKENDS

OP = "rotary_attention"


def spread(count: int, low: int, high: int) -> list[int]:
    """`count` lengths from `low` to `high`, shuffled, both ends included."""
    step = (high - low) / max(count - 1, 1)
    return [low + round(step * (i * 37 % count)) for i in range(count)]


CPU_SHAPES = {
    "joint": [640, 303, 512, 417],
    "vision": [241] * 8,
    "audio": [31] * 64,
    "span": spread(64, 4, 17),
}
CUDA_SHAPES = {
    "joint": spread(96, 303, 640),
    "joint, grid 18x32": [1312] * 48,
    "vision": [241] * 256,
    "audio": [31] * 768,
    "span": spread(768, 4, 17),
}
SCALING = (31, 64, 128, 256, 512, 1024)
"""Lengths of sequences whose total number of tokens is the same."""
CPU_SCALING_TOKENS, CUDA_SCALING_TOKENS = 2048, 49152
OTHER_SIZES = (32, 96, 128)
CROSS_SHAPES = {
    "10 to 40 queries over 241 keys": (spread(16, 10, 40), [241] * 16, 12),
    "16 queries over 303 to 640 keys": ([16] * 8, spread(8, 303, 640), 12),
    "241 queries and keys, 3 heads of keys": ([241] * 8, [241] * 8, 3),
    "1 query over 512 keys": ([1] * 16, [512] * 16, 12),
}
"""Lengths of queries and of keys, and heads of keys, for 12 heads of queries."""
PASSES = ("forward", "forward+backward")


def ours(backend: str = "auto", position: bool = True) -> Peer:
    """rotary_attention by one of its back ends, without the position for a peer that does less."""

    def solve(problem: Problem) -> Solution:
        angles, longest = problem.angles if position else None, max(problem.lengths)
        return Solution(
            lambda: rotary_attention(problem.qkv, problem.cu_seqlens, longest, angles=angles, backend=backend),
            problem.qkv,
            problem.grad,
        )

    return solve


def _facts(problem: Problem, backward: bool, limits: dict[str, float]) -> dict[str, object]:
    counts = {"flops": problem.flops(backward), "bytes": problem.bytes(backward)}
    described = {"tokens": len(problem.qkv), "sequences": len(problem.lengths), "dtype": str(problem.qkv.dtype)}
    return counts | described | limits


@functools.cache
def on_cpu(lengths: tuple[int, ...], passes: str, threads: int, size: int = 64) -> Measured:
    """float32; the call as in a model, overhead included."""
    backward = passes == PASSES[1]
    with torch_threads(threads):
        problem = make_problem(list(lengths), "cpu", torch.float32, size=size)

        def build(solve: Peer) -> Contender:
            solution = solve(problem)
            return Contender(solution.call(backward), functools.partial(solution.result, backward))

        solvers = {OURS: ours(), **CPU_PEERS}
        builders = {name: functools.partial(build, solve) for name, solve in solvers.items()}
        measured = measure(builders, rounds=9, difference=largest_relative_difference, tolerance=1e-4)
        measured.facts = _facts(problem, backward, cpu_limits(threads)) | {"threads": threads}
    return measured


@replayed
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("shape", CPU_SHAPES)
@pytest.mark.parametrize("implementation", [OURS, *CPU_PEERS])
def test_cpu(benchmark, implementation, shape, passes, threads):
    measured = on_cpu(tuple(CPU_SHAPES[shape]), passes, threads)
    publish(benchmark, measured, implementation, op=OP, device=cpu_label(threads), label=f"{shape}, {passes}")


@replayed
@pytest.mark.parametrize("length", SCALING)
@pytest.mark.parametrize("implementation", [OURS, *CPU_PEERS])
def test_cpu_scaling(benchmark, implementation, length):
    measured = on_cpu((length,) * (CPU_SCALING_TOKENS // length), PASSES[1], 1)
    label = f"{CPU_SCALING_TOKENS} tokens in sequences of {length}, {PASSES[1]}"
    publish(benchmark, measured, implementation, op=OP, device=cpu_label(1), label=label, case="scaling", length=length)


@replayed
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("size", OTHER_SIZES)
@pytest.mark.parametrize("implementation", [OURS, *CPU_PEERS])
def test_cpu_head_sizes(benchmark, implementation, size, passes, threads):
    measured = on_cpu(tuple(CPU_SHAPES["joint"]), passes, threads, size)
    label = f"joint, heads of {size}, {passes}"
    publish(benchmark, measured, implementation, op=OP, device=cpu_label(threads), label=label)


@functools.cache
def cross_on_cpu(shape: str, passes: str, threads: int) -> Measured:
    """float32; the call as in a model, overhead included."""
    backward = passes == PASSES[1]
    with torch_threads(threads):
        problem = make_cross_problem(*CROSS_SHAPES[shape])

        def build(solve: Callable[[CrossProblem], CrossSolution]) -> Contender:
            solution = solve(problem)
            return Contender(solution.call(backward), functools.partial(solution.result, backward))

        solvers = {OURS: cross_ours, **CROSS_PEERS}
        builders = {name: functools.partial(build, solve) for name, solve in solvers.items()}
        measured = measure(builders, rounds=9, difference=largest_relative_difference, tolerance=1e-4)
        counts = {"flops": problem.flops(backward), "tokens": len(problem.q), "tokens_k": len(problem.kv)}
        measured.facts = counts | {"dtype": str(problem.q.dtype), "threads": threads}
    return measured


@replayed
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("shape", CROSS_SHAPES)
@pytest.mark.parametrize("implementation", [OURS, *CROSS_PEERS])
def test_cpu_cross(benchmark, implementation, shape, passes, threads):
    measured = cross_on_cpu(shape, passes, threads)
    publish(benchmark, measured, implementation, op=OP, device=cpu_label(threads), label=f"{shape}, {passes}")


FULL = [b.name for b in BACKENDS if b.name not in ("triton", "native", "reference")]
LESS = ["flash_attn", "flash_attn_3", "flash_attn_4", "varlen", "xformers"]
PADDED = "SDPA, padded and masked"
CUDA_PEERS = [*FULL, PADDED, "FlexAttention", *(f"{name}, less: no position" for name in (OURS, *LESS))]


def _cuda_solver(name: str) -> Peer:
    others: dict[str, Peer] = {"FlexAttention": flex_attention, PADDED: padded_sdpa}
    if name in others:
        return others[name]
    backend, _, less = name.partition(", less")
    backend = "triton" if backend == OURS else backend
    reason = BACKENDS[backend].unavailable(torch.device("cuda"), torch.bfloat16)
    if reason is not None:
        raise Missing(reason)
    return ours(backend, position=not less)


@functools.cache
def on_cuda(lengths: tuple[int, ...], passes: str, peers: tuple[str, ...]) -> Measured:
    """bfloat16; calls captured in a graph, inputs rotated among sets that together exceed the cache."""
    backward = passes == PASSES[1]
    first = make_problem(list(lengths), "cuda", torch.bfloat16)
    more = range(1, input_sets(first.bytes(False)))
    problems = [first, *(make_problem(list(lengths), "cuda", torch.bfloat16, seed) for seed in more)]

    def build(name: str) -> Contender:
        solutions = [_cuda_solver(name)(problem) for problem in problems]
        result = None if "less" in name else functools.partial(solutions[0].result, backward)
        calls = [solution.call(backward) for solution in solutions]
        peak = peak_extra_bytes(calls[0])
        graph, times, in_graph = captured(calls)
        return Contender(graph, result, times, {"peak_extra_bytes": peak, "in_graph": in_graph})

    builders = {name: functools.partial(build, name) for name in (OURS, *peers)}
    # Implementations that round position and probabilities to bfloat16 are 0.4% from the truth.
    measured = measure(
        builders, rounds=15, difference=largest_relative_difference, tolerance=2e-2, clock=EventClock(flush=False)
    )
    measured.facts = _facts(first, backward, cuda_limits())
    return measured


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("shape", CUDA_SHAPES)
@pytest.mark.parametrize("implementation", [OURS, *CUDA_PEERS])
def test_cuda(benchmark, implementation, shape, passes):
    measured = on_cuda(tuple(CUDA_SHAPES[shape]), passes, tuple(CUDA_PEERS))
    publish(benchmark, measured, implementation, op=OP, device=cuda_label(), label=f"{shape}, {passes}")


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize("length", SCALING)
@pytest.mark.parametrize("implementation", [OURS, *FULL, PADDED])
def test_cuda_scaling(benchmark, implementation, length):
    measured = on_cuda((length,) * (CUDA_SCALING_TOKENS // length), PASSES[1], (*FULL, PADDED))
    label = f"{CUDA_SCALING_TOKENS} tokens in sequences of {length}, {PASSES[1]}"
    publish(benchmark, measured, implementation, op=OP, device=cuda_label(), label=label, case="scaling", length=length)
