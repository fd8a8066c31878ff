"""Peers of rotary_attention compute the same: the benchmark would exclude one that does not."""

from __future__ import annotations

import pytest
import torch

from benchmarks.attention_peers import CPU_PEERS, flex_attention, make_problem
from benchmarks.cross_attention_peers import CROSS_PEERS, make_cross_problem
from benchmarks.cross_attention_peers import ours as cross_ours
from reserve_kernels import rotary_attention

PEERS = CPU_PEERS | {"FlexAttention": flex_attention}


# FlexAttention takes seconds to compile and runs one code path for all lengths.
@pytest.mark.parametrize(
    ("peer", "lengths"), [*((peer, [5, 60, 17]) for peer in PEERS), *((peer, [31, 31, 31]) for peer in CPU_PEERS)]
)
def test_a_peer_computes_the_same_as_ours(peer, lengths):
    problem = make_problem(lengths, "cpu", torch.float32)
    # FlexAttention has no gradient on a CPU.
    problem = problem._replace(qkv=problem.qkv.detach())
    ours = rotary_attention(problem.qkv, problem.cu_seqlens, max(lengths), angles=problem.angles)
    solution = PEERS[peer](problem)
    torch.testing.assert_close(solution.packed(solution.run()).detach(), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("peer", CPU_PEERS)
def test_a_peer_has_ours_gradient(peer):
    problem = make_problem([5, 60, 17], "cpu", torch.float32)
    out = rotary_attention(problem.qkv, problem.cu_seqlens, 60, angles=problem.angles)
    (ours,) = torch.autograd.grad(out, problem.qkv, problem.grad)
    solution = CPU_PEERS[peer](problem)
    (theirs,) = solution.call(backward=True)()
    torch.testing.assert_close(solution.packed(theirs), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("peer", CROSS_PEERS)
@pytest.mark.parametrize(("lengths_k", "kv_heads"), [([31, 4, 9], 12), ([31, 31, 31], 3)])
def test_a_peer_of_cross_attention_computes_the_same_as_ours(peer, lengths_k, kv_heads):
    problem = make_cross_problem([5, 60, 17], lengths_k, kv_heads)
    for ours, theirs in zip(cross_ours(problem).result(True), CROSS_PEERS[peer](problem).result(True), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
