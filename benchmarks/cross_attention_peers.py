"""Queries over other tokens' keys for rotary_attention, and other ways to compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.attention_peers import HEADS, rotated
from reserve_kernels import rotary_attention


class CrossProblem(NamedTuple):
    """Packed queries, keys and values of one shape, and the gradient of the output."""

    lengths: list[int]
    lengths_k: list[int]
    q: torch.Tensor
    kv: torch.Tensor
    grad: torch.Tensor
    angles: torch.Tensor
    angles_k: torch.Tensor

    def flops(self, backward: bool) -> int:
        """Necessary operations: two products forward, five more backward."""
        _, heads, size = self.q.shape
        pairs = sum(n * m for n, m in zip(self.lengths, self.lengths_k, strict=True))
        return (14 if backward else 4) * size * heads * pairs


def make_cross_problem(lengths: list[int], lengths_k: list[int], kv_heads: int = HEADS, size: int = 64) -> CrossProblem:
    """float32 on the CPU."""
    generator = torch.Generator("cpu").manual_seed(0)
    tokens, tokens_k = sum(lengths), sum(lengths_k)
    q = torch.randn(tokens, HEADS, size, generator=generator).requires_grad_()
    kv = torch.randn(tokens_k, 2, kv_heads, size, generator=generator).requires_grad_()
    grad = torch.randn(tokens, HEADS, size, generator=generator)
    angles, angles_k = (torch.randn(n, size // 4, generator=generator) for n in (tokens, tokens_k))
    return CrossProblem(lengths, lengths_k, q, kv, grad, angles, angles_k)


Run = Callable[[], torch.Tensor]


class CrossSolution(NamedTuple):
    """How a peer solves a problem: as `attention_peers.Solution`, with the leaves of queries and of keys and values."""

    run: Run
    leaves: tuple[torch.Tensor, torch.Tensor]
    grad: torch.Tensor
    packed: Callable[[torch.Tensor], torch.Tensor] = lambda out: out
    packed_k: Callable[[torch.Tensor], torch.Tensor] = lambda out: out

    def call(self, backward: bool) -> Callable[[], object]:
        """The forward pass without autograd, or both passes."""
        if backward:
            return lambda: torch.autograd.grad(self.run(), self.leaves, self.grad)
        return self.forward

    def forward(self) -> torch.Tensor:
        """The output, without autograd."""
        with torch.no_grad():
            return self.run()

    def result(self, backward: bool) -> list[torch.Tensor]:
        """The output, and with `backward` the gradients, in our layout."""
        if not backward:
            return [self.packed(self.forward())]
        out = self.run()
        grad_q, grad_kv = torch.autograd.grad(out, self.leaves, self.grad)
        return [self.packed(out.detach()), self.packed(grad_q), self.packed_k(grad_kv)]


def _starts(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def ours(problem: CrossProblem) -> CrossSolution:
    """rotary_attention with kv."""
    starts, starts_k = _starts(problem.lengths), _starts(problem.lengths_k)
    longest, longest_k = max(problem.lengths), max(problem.lengths_k)

    def run() -> torch.Tensor:
        return rotary_attention(
            problem.q,
            starts,
            longest,
            kv=problem.kv,
            cu_seqlens_k=starts_k,
            max_seqlen_k=longest_k,
            angles=problem.angles,
            angles_k=problem.angles_k,
        )

    return CrossSolution(run, (problem.q, problem.kv), problem.grad)


def looped_sdpa(problem: CrossProblem) -> CrossSolution:
    """One SDPA call for each sequence, without mask or padding."""
    shared = problem.q.shape[1] != problem.kv.shape[2]

    def run() -> torch.Tensor:
        k, v = problem.kv.unbind(1)
        q = rotated(problem.q, problem.angles[:, None]).split(problem.lengths)
        k, v = rotated(k, problem.angles_k[:, None]).split(problem.lengths_k), v.split(problem.lengths_k)
        outputs = []
        for part in zip(q, k, v, strict=True):
            queries, keys, values = (x.transpose(0, 1)[None] for x in part)
            out = scaled_dot_product_attention(queries, keys, values, enable_gqa=shared)
            outputs.append(out[0].transpose(0, 1))
        return torch.cat(outputs)

    return CrossSolution(run, (problem.q, problem.kv), problem.grad)


def padded_sdpa(problem: CrossProblem) -> CrossSolution:
    """Everything padded to the longest sequence, as its inputs already are, with a mask of the valid keys."""
    shared = problem.q.shape[1] != problem.kv.shape[2]
    valid, valid_k = (
        torch.arange(max(lengths)) < torch.tensor(lengths)[:, None] for lengths in (problem.lengths, problem.lengths_k)
    )

    def padded(x: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        full = x.new_zeros(*where.shape, *x.shape[1:])
        full[where] = x.detach()
        return full

    q, kv = padded(problem.q, valid).requires_grad_(), padded(problem.kv, valid_k).requires_grad_()
    angles, angles_k = padded(problem.angles, valid), padded(problem.angles_k, valid_k)
    # The output of padded queries does not matter: their gradient is 0.
    mask = None if valid_k.all() else valid_k[:, None, None, :]

    def run() -> torch.Tensor:
        k, v = kv.unbind(2)
        operands = rotated(q, angles[:, :, None]), rotated(k, angles_k[:, :, None]), v
        queries, keys, values = (x.transpose(1, 2) for x in operands)
        out = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=shared)
        return out.transpose(1, 2)

    grad = padded(problem.grad, valid)
    return CrossSolution(run, (q, kv), grad, lambda out: out[valid], lambda out: out[valid_k])


CROSS_PEERS: dict[str, Callable[[CrossProblem], CrossSolution]] = {
    "SDPA, padded and masked": padded_sdpa,
    "SDPA, loop": looped_sdpa,
}
