"""rotary_attention of every head size and number of angles, on the CPU."""

from __future__ import annotations

import pytest
import torch

from reserve_kernels import rotary_attention
from reserve_kernels.attention.availability import BACKENDS
from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.reference import apply_rotary, attention_reference
from tests.kernels.attention_cases import ANGLES, HEAD_SIZES, starts
from tests.kernels.attention_plain import plain_attention
from tests.kernels.numerics import assert_as_good_as_reference

CPU_BACKENDS = ["native", "sdpa"]
LENGTHS = [31, 1, 0, 130, 65, 31]


def check(backend, size, angles, dtype=torch.float32, rotary="reserve", segments=False):
    reason = BACKENDS[backend].unavailable(torch.device("cpu"), dtype)
    if reason is not None:
        pytest.skip(reason)
    tokens = sum(LENGTHS)

    def draw():
        qkv, grad = torch.randn(tokens, 3, 2, size).to(dtype), torch.randn(tokens, 2, size).to(dtype)
        position = torch.randn(tokens, angles) * 3 if angles else None
        ids = torch.randint(0, 3, (tokens,)).int() if segments else None
        packing = Packing(starts(LENGTHS), max(LENGTHS), position, ids, rotary, size**-0.5)
        exact = with_gradient(lambda x: attention_reference(x, packing)[0], qkv.double(), grad)
        plain = with_gradient(lambda x: plain_attention(x, packing), qkv, grad)
        return qkv, grad, packing, list(zip(exact, plain, strict=True))

    qkv, grad, packing, expected = draw()
    others = [draw()[-1] for _ in range(3)]
    options = {"angles": packing.angles, "segment_ids": packing.segment_ids, "rotary": rotary, "backend": backend}
    results = with_gradient(lambda x: rotary_attention(x, *packing[:2], **options), qkv, grad)
    for i, (result, (truth, plain)) in enumerate(zip(results, expected, strict=True)):
        assert_as_good_as_reference(result, truth, plain, [other[i] for other in others])


def with_gradient(function, x, grad):
    leaf = x.clone().requires_grad_()
    out = function(leaf)
    return out.detach(), torch.autograd.grad(out, leaf, grad.to(out.dtype))[0]


@pytest.mark.parametrize(("size", "angles"), ANGLES)
@pytest.mark.parametrize("rotary", ["reserve", "standard"])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_every_number_of_angles(backend, size, angles, rotary):
    check(backend, size, angles, rotary=rotary)


@pytest.mark.parametrize("size", HEAD_SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_without_position(backend, size, dtype):
    check(backend, size, 0, dtype)


@pytest.mark.parametrize("size", HEAD_SIZES)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_segments_in_bfloat16(backend, size):
    check(backend, size, 16, torch.bfloat16, segments=True)


def test_dimensions_beyond_the_angles_pass_through():
    x = torch.randn(7, 2, 96)
    for rotary in ("reserve", "standard"):
        out = apply_rotary(x, torch.randn(7, 20), rotary)
        assert torch.equal(out[..., 40:], x[..., 40:])
        assert (out[..., :40] != x[..., :40]).all()


@pytest.mark.parametrize("backend", [*CPU_BACKENDS, "reference"])
def test_an_angle_of_0_changes_nothing(backend):
    """The standard form; so more angles than needed may be passed."""
    qkv, cu = torch.randn(9, 3, 2, 128), starts([4, 5])
    few = torch.randn(9, 3)
    more = torch.cat((few, torch.zeros(9, 30)), 1)
    out, same = (rotary_attention(qkv, cu, 5, angles=a, rotary="standard", backend=backend) for a in (few, more))
    assert torch.equal(out, same)


@pytest.mark.parametrize("size", HEAD_SIZES)
def test_the_default_scale_is_that_of_the_head_size(size):
    qkv, cu = torch.randn(9, 3, 2, size), starts([4, 5])
    assert torch.equal(rotary_attention(qkv, cu, 5), rotary_attention(qkv, cu, 5, scale=size**-0.5))
