"""The model's small ops, as the model runs them: bias_quick_gelu, and ops in plain PyTorch that fusing might speed up.

All are limited by memory bandwidth. The project ships an op of its own only if it beats PyTorch and torch.compile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from einops import rearrange
from torch.nn import functional as F

from benchmarks.compiled import compiled
from benchmarks.cuda import EventClock, captured, cuda_label, cuda_limits, input_sets
from benchmarks.interleaved import (
    OURS,
    Call,
    Contender,
    Measured,
    largest_relative_difference,
    measure,
    publish,
    replayed,
)
from benchmarks.machine import cpu_label, cpu_limits, torch_threads
from reserve.model.encoders import patchify
from reserve.model.transformer import LAYER_NORM_EPS, quick_gelu
from reserve_kernels import bias_quick_gelu

HIDDEN, PATCH = 768, 16
CPU_TOKENS, CUDA_TOKENS = 4096, 65536
PLAIN, COMPILED = "PyTorch", "torch.compile"
PLAIN_OPS = "small ops"


class SmallOp(NamedTuple):
    """What the model runs, and what it is compared with."""

    function: Callable[..., torch.Tensor]
    inputs: Callable[[int, str, torch.dtype], list[torch.Tensor]]
    """(tokens, device, dtype) -> the function's arguments"""
    bytes: Callable[[int, int], int]
    """(tokens, item size) -> both passes' minimum traffic"""
    op: str = PLAIN_OPS
    """The op of `reserve_kernels` that the function is."""
    plain: Callable[..., torch.Tensor] | None = None
    """The same as one would write it first, if the function is something else."""

    @property
    def implementations(self) -> dict[str, Callable[..., torch.Tensor]]:
        if self.plain is None:
            return {OURS: self.function, COMPILED: compiled(self.function)}
        return {OURS: self.function, PLAIN: self.plain, COMPILED: compiled(self.plain)}


def add_layer_norm(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    total = x + y
    return total + F.layer_norm(total, (HIDDEN,), weight, bias, LAYER_NORM_EPS)


def plain_bias_quick_gelu(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    # As under autocast, which casts the parameter.
    return quick_gelu(x + bias.to(x.dtype))


def our_patchify(images: torch.Tensor) -> torch.Tensor:
    return patchify(images, PATCH, patch_dtype(images))


def plain_patchify(images: torch.Tensor) -> torch.Tensor:
    patches = rearrange(images, "n (h p) (w q) c -> n h w (p q c)", p=PATCH, q=PATCH)
    return patches.to(patch_dtype(images)) / 255


def patch_dtype(images: torch.Tensor) -> torch.dtype:
    """What the model computes in: bfloat16 on a GPU."""
    return torch.bfloat16 if images.is_cuda else torch.float32


def _leaves(device: str, dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    return [torch.randn(shape, device=device).to(dtype).requires_grad_() for shape in shapes]


OPS = {
    "add + layer norm": SmallOp(
        add_layer_norm,
        lambda n, device, dtype: _leaves(device, dtype, (n, HIDDEN), (n, HIDDEN), (HIDDEN,), (HIDDEN,)),
        # Forward: two in, the output and the sum out. Backward: its gradient and the sum in, one gradient out for both.
        lambda n, size: 7 * n * HIDDEN * size,
    ),
    "bias + quick GELU": SmallOp(
        bias_quick_gelu,
        lambda n, device, dtype: (
            _leaves(device, dtype, (n, 4 * HIDDEN)) + _leaves(device, torch.float32, (4 * HIDDEN,))
        ),
        # Forward: one in, one out. Backward: the output's gradient and the input in, one gradient out.
        lambda n, size: 5 * n * 4 * HIDDEN * size,
        op="bias_quick_gelu",
        plain=plain_bias_quick_gelu,
    ),
    "patchify": SmallOp(
        our_patchify,
        lambda n, device, _: [torch.randint(0, 256, (max(n // 240, 1), 192, 320, 3), dtype=torch.uint8, device=device)],
        # Bytes in, patches out: images get no gradient.
        lambda n, size: max(n // 240, 1) * 192 * 320 * 3 * (1 + size),
        plain=plain_patchify,
    ),
}


def _both_passes(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> Callable[[], list[torch.Tensor]]:
    """Calls the function and differentiates it by the inputs that require a gradient, if any."""
    leaves = [x for x in inputs if x.requires_grad]
    if not leaves:
        return lambda: [function(*inputs)]
    out = function(*inputs).detach()
    grad = torch.randn(out.shape, generator=torch.Generator(out.device).manual_seed(1), device=out.device).to(out.dtype)

    def run() -> list[torch.Tensor]:
        out = function(*inputs)
        return [out.detach(), *torch.autograd.grad(out, leaves, grad)]

    return run


CASES = [(case, name) for case, op in OPS.items() for name in op.implementations]


@functools.cache
def on_cpu(name: str, threads: int) -> Measured:
    """float32."""
    op = OPS[name]
    with torch_threads(threads):
        inputs = op.inputs(CPU_TOKENS, "cpu", torch.float32)

        def build(function: Callable[..., torch.Tensor]) -> Contender:
            run = _both_passes(function, inputs)
            return Contender(run, run)

        builders = {key: functools.partial(build, function) for key, function in op.implementations.items()}
        measured = measure(builders, rounds=15, difference=largest_relative_difference, tolerance=1e-4)
        measured.facts = {"flops": 0, "bytes": op.bytes(CPU_TOKENS, 4), **cpu_limits(threads), "threads": threads}
    return measured


@replayed
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("case", "implementation"), CASES)
def test_cpu(benchmark, case, implementation, threads):
    publish(benchmark, on_cpu(case, threads), implementation, op=OPS[case].op, device=cpu_label(threads), label=case)


@functools.cache
def on_cuda(name: str) -> Measured:
    """bfloat16; calls captured in a graph, inputs rotated."""
    op = OPS[name]
    sets = input_sets(op.bytes(CUDA_TOKENS, 2) // 3)
    inputs = [op.inputs(CUDA_TOKENS, "cuda", torch.bfloat16) for _ in range(sets)]

    def build(function: Callable[..., torch.Tensor]) -> Contender:
        calls: list[Call] = [_both_passes(function, one) for one in inputs]
        graph, times, in_graph = captured(calls)
        return Contender(graph, _both_passes(function, inputs[0]), times, {"in_graph": in_graph})

    builders = {key: functools.partial(build, function) for key, function in op.implementations.items()}
    measured = measure(
        builders, rounds=15, difference=largest_relative_difference, tolerance=2e-2, clock=EventClock(flush=False)
    )
    measured.facts = {"flops": 0, "bytes": op.bytes(CUDA_TOKENS, 2), **cuda_limits()}
    return measured


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize(("case", "implementation"), CASES)
def test_cuda(benchmark, case, implementation):
    publish(benchmark, on_cuda(case), implementation, op=OPS[case].op, device=cuda_label(), label=case)
