"""Inputs for rotary_attention, and other ways to compute the same.

A peer is a function of a problem that returns a `Solution`: `run()` computes the output, `leaf` is what it is
differentiated by, `grad` is the output's gradient, and `packed` makes output and gradient comparable with ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.compiled import compiled

HEADS = 12


class Problem(NamedTuple):
    """Packed inputs of one shape, and the gradient of the output."""

    lengths: list[int]
    qkv: torch.Tensor
    grad: torch.Tensor
    cu_seqlens: torch.Tensor
    angles: torch.Tensor

    def flops(self, backward: bool) -> int:
        """Necessary operations: two products forward, five more backward."""
        _, _, heads, size = self.qkv.shape
        return (14 if backward else 4) * size * heads * sum(length**2 for length in self.lengths)

    def bytes(self, backward: bool) -> int:
        """Minimum traffic: forward reads qkv and angles and writes out and lse; backward reads all of them and the
        output's gradient, and writes that of qkv.
        """
        _, _, heads, size = self.qkv.shape
        row, position = heads * size * self.qkv.element_size(), 4 * self.angles.shape[1]
        forward = 4 * row + position + 4 * heads
        return len(self.qkv) * (forward + (8 * row + position + 4 * heads if backward else 0))


def make_problem(lengths: list[int], device: str, dtype: torch.dtype, seed: int = 0, size: int = 64) -> Problem:
    """Heads of `size` numbers, of which half rotate."""
    generator = torch.Generator(device).manual_seed(seed)
    tokens = sum(lengths)
    qkv = torch.randn(tokens, 3, HEADS, size, generator=generator, device=device).to(dtype).requires_grad_()
    grad = torch.randn(tokens, HEADS, size, generator=generator, device=device).to(dtype)
    angles = torch.randn(tokens, size // 4, generator=generator, device=device)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int().to(device)
    return Problem(lengths, qkv, grad, cu_seqlens, angles)


class Solution(NamedTuple):
    """How a peer solves a problem; see the module."""

    run: Callable[[], torch.Tensor]
    leaf: torch.Tensor
    grad: torch.Tensor
    packed: Callable[[torch.Tensor], torch.Tensor] = lambda out: out

    def call(self, backward: bool) -> Callable[[], object]:
        """The forward pass without autograd, or both passes."""
        if backward:
            return lambda: torch.autograd.grad(self.run(), self.leaf, self.grad)
        return self.forward

    def forward(self) -> torch.Tensor:
        """The output, without autograd."""
        with torch.no_grad():
            return self.run()

    def result(self, backward: bool) -> list[torch.Tensor]:
        """The output, and with `backward` the gradient, in our layout."""
        if not backward:
            return [self.packed(self.forward())]
        out = self.run()
        (grad,) = torch.autograd.grad(out, self.leaf, self.grad)
        return [self.packed(out.detach()), self.packed(grad)]


Peer = Callable[[Problem], Solution]


def rotated(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """The diagonal position, as a model without our op would write it: x [..., size], angles [..., n], broadcast."""
    sin, cos = angles.sin(), angles.cos()
    factors = torch.stack((sin - cos, sin + cos), -1).flatten(-2).to(x.dtype)
    count = factors.shape[-1]
    return torch.cat((x[..., :count] * factors, x[..., count:]), -1)


def _packed_operands(qkv: torch.Tensor, angles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k, v [1, heads, tokens, size] with position."""
    q, k, v = (x.transpose(0, 1)[None] for x in qkv.unbind(1))
    return rotated(q, angles), rotated(k, angles), v


def _sequence_of_token(problem: Problem) -> torch.Tensor:
    lengths = torch.tensor(problem.lengths)
    return torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(problem.qkv.device)


def padded_sdpa(problem: Problem) -> Solution:
    """SDPA as used without packing: everything padded to the longest sequence, with a mask of the valid keys.

    Its qkv is already padded, as in a model that pads, so that it pays for no copies. Without padding it has no mask.
    """
    lengths = torch.tensor(problem.lengths, device=problem.qkv.device)
    valid = torch.arange(max(problem.lengths), device=lengths.device) < lengths[:, None]
    qkv = problem.qkv.new_zeros(*valid.shape, *problem.qkv.shape[1:])
    qkv[valid] = problem.qkv.detach()
    grad = problem.grad.new_zeros(*valid.shape, *problem.grad.shape[1:])
    grad[valid] = problem.grad
    angles = problem.angles.new_zeros(*valid.shape, problem.angles.shape[1])
    angles[valid] = problem.angles
    # The output of padded queries does not matter: their gradient is 0.
    mask = None if min(problem.lengths) == max(problem.lengths) else valid[:, None, None, :]
    qkv = qkv.detach().requires_grad_()

    def run() -> torch.Tensor:
        q, k, v = qkv.unbind(2)
        q, k = (rotated(x, angles[:, :, None]).transpose(1, 2) for x in (q, k))
        return scaled_dot_product_attention(q, k, v.transpose(1, 2), attn_mask=mask).transpose(1, 2)

    return Solution(run, qkv, grad, lambda out: out[valid])


def looped_sdpa(problem: Problem) -> Solution:
    """One SDPA call for each sequence, without mask or padding."""

    def run() -> torch.Tensor:
        parts = [x.split(problem.lengths, dim=2) for x in _packed_operands(problem.qkv, problem.angles)]
        outputs = [scaled_dot_product_attention(*part)[0].transpose(0, 1) for part in zip(*parts, strict=True)]
        return torch.cat(outputs)

    return Solution(run, problem.qkv, problem.grad)


def block_mask_sdpa(problem: Problem) -> Solution:
    """One SDPA call on the packed tokens, with a boolean block mask."""
    sequence = _sequence_of_token(problem)
    mask = sequence[:, None] == sequence

    def run() -> torch.Tensor:
        q, k, v = _packed_operands(problem.qkv, problem.angles)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)[0].transpose(0, 1)

    return Solution(run, problem.qkv, problem.grad)


def flex_attention(problem: Problem) -> Solution:
    """FlexAttention on the packed tokens, compiled, as is the position. Making its block mask is not timed.

    The two are compiled separately: as one function, PyTorch 2.13 returns wrong results on a CPU.
    """
    from torch.nn.attention import flex_attention as flex

    sequence = _sequence_of_token(problem)
    tokens = len(sequence)
    mask = flex.create_block_mask(
        lambda b, h, query, key: sequence[query] == sequence[key], None, None, tokens, tokens, device=sequence.device
    )
    operands, attend = compiled(_packed_operands), compiled(flex.flex_attention)

    def run() -> torch.Tensor:
        q, k, v = operands(problem.qkv, problem.angles)
        return attend(q, k, v, block_mask=mask)[0].transpose(0, 1)

    return Solution(run, problem.qkv, problem.grad)


CPU_PEERS: dict[str, Peer] = {
    "SDPA, padded and masked": padded_sdpa,
    "SDPA, loop": looped_sdpa,
    "SDPA, block mask": block_mask_sdpa,
}
