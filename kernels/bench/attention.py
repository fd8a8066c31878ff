"""rotary_attention: packed sequences with rotary positions, against attention that pads, masks or loops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from reserve_kernels import rotary_attention
from reserve_kernels.bench.case import Case, module
from reserve_kernels.bench.interleaved import OURS, Contender, largest_relative_difference

HEADS, HEAD_SIZE, ANGLES = 12, 64, 16
LENGTHS = {
    "128 sequences of 16": [16] * 128,
    "16 of 50 to 250": [50 + 200 * i // 15 for i in range(16)],
    "4 of 400 to 640": [400, 480, 560, 640],
}


def cases(device: torch.device) -> Iterator[Case]:
    """Forward and backward, in float32 on the CPU and bfloat16 on a GPU."""
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    peers = {"SDPA, padded and masked": _padded, "SDPA, loop": _looped}
    if device.type == "cuda":
        peers |= {"flash-attn": _flash}
    for name, lengths in LENGTHS.items():
        problem = _Problem(lengths, device, dtype)
        builders = {OURS: functools.partial(_contender, problem, _ours)}
        builders |= {peer: functools.partial(_contender, problem, solve) for peer, solve in peers.items()}
        yield Case(
            f"{HEADS} heads of {HEAD_SIZE}, forward and backward",
            name,
            builders,
            largest_relative_difference,
            1e-4 if dtype == torch.float32 else 3e-2,
            {"tokens": sum(lengths)},
        )


class _Problem:
    """Packed inputs, and the gradient of the output."""

    def __init__(self, lengths: list[int], device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        tokens = sum(lengths)
        self.lengths = lengths
        self.qkv = torch.randn(tokens, 3, HEADS, HEAD_SIZE, generator=generator).to(device, dtype).requires_grad_()
        self.grad = torch.randn(tokens, HEADS, HEAD_SIZE, generator=generator).to(device, dtype)
        self.angles = torch.randn(tokens, ANGLES, generator=generator).to(device)
        self.cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int().to(device)
        longest = torch.arange(max(lengths), device=device)
        self.valid = longest < torch.tensor(lengths, device=device)[:, None]


Solve = Callable[[_Problem], Callable[[], torch.Tensor]]


def _contender(problem: _Problem, solve: Solve) -> Contender:
    run = solve(problem)

    def step() -> Any:
        return torch.autograd.grad(run(), problem.qkv, problem.grad)

    return Contender(step, lambda: [run().detach(), *step()])


def _ours(problem: _Problem) -> Callable[[], torch.Tensor]:
    return lambda: rotary_attention(
        problem.qkv, problem.cu_seqlens, max(problem.lengths), angles=problem.angles, rotary="standard"
    )


def _rotated(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """The rotation by angles [tokens, 16] of [tokens, heads, 64], as a model without our op writes it."""
    sin, cos = angles.sin()[:, None].to(x.dtype), angles.cos()[:, None].to(x.dtype)
    even, odd = x[..., : 2 * ANGLES : 2], x[..., 1 : 2 * ANGLES : 2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
    return torch.cat((turned, x[..., 2 * ANGLES :]), -1)


def _operands(problem: _Problem) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q, k, v = problem.qkv.unbind(1)
    return _rotated(q, problem.angles), _rotated(k, problem.angles), v


def _padded(problem: _Problem) -> Callable[[], torch.Tensor]:
    """Padding and masking included: the tokens come packed."""
    mask = None if problem.valid.all() else problem.valid[:, None, None, :]

    def run() -> torch.Tensor:
        padded = []
        for x in _operands(problem):
            whole = x.new_zeros(*problem.valid.shape, HEADS, HEAD_SIZE)
            padded.append(whole.masked_scatter(problem.valid[..., None, None], x).transpose(1, 2))
        q, k, v = padded
        return scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)[problem.valid]

    return run


def _looped(problem: _Problem) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        parts = [x.transpose(0, 1)[None].split(problem.lengths, dim=2) for x in _operands(problem)]
        outputs = [scaled_dot_product_attention(*part)[0].transpose(0, 1) for part in zip(*parts, strict=True)]
        return torch.cat(outputs)

    return run


def _flash(problem: _Problem) -> Callable[[], torch.Tensor]:
    attend = module("flash_attn").flash_attn_varlen_func
    ends, longest = problem.cu_seqlens, max(problem.lengths)
    return lambda: attend(*_operands(problem), ends, ends, longest, longest)
