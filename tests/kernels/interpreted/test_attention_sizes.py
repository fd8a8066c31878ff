"""The Triton kernels of rotary_attention for other head sizes and numbers of angles, interpreted."""

from __future__ import annotations

import pytest
import torch

from reserve_kernels import rotary_attention
from reserve_kernels.attention import tiles
from reserve_kernels.attention.packing import CrossPacking, Packing
from reserve_kernels.attention.peers import _of_two
from reserve_kernels.attention.placing import place_apart, place_rows
from reserve_kernels.attention.reference import apply_rotary, attention_reference, cross_attention_reference
from tests.kernels.attention_cases import HEAD_SIZES, cross_problem, starts
from tests.kernels.attention_plain import plain_attention
from tests.kernels.numerics import assert_as_good_as_reference

# Of each size: few angles or a number that no tile divides, and the most. Half of 64 is more than the short kernels
# take. Each size has both positions; both with each number would take twice the time.
ANGLES = [
    (32, 1, "reserve"),
    (32, 16, "standard"),
    (64, 3, "standard"),
    (64, 32, "reserve"),
    (96, 31, "standard"),
    (96, 48, "reserve"),
    (128, 40, "reserve"),
    (128, 64, "standard"),
]


def with_gradient(function, x, grad):
    leaf = x.clone().requires_grad_()
    out = function(leaf)
    return out.detach(), torch.autograd.grad(out, leaf, grad.to(out.dtype))[0]


def check(lengths, size, angles, rotary="reserve", dtype=torch.float16, segments=False):
    tokens = sum(lengths)
    qkv, grad = torch.randn(tokens, 3, 2, size).to(dtype), torch.randn(tokens, 2, size).to(dtype)
    position = torch.randn(tokens, angles) * 3 if angles else None
    ids = torch.randint(0, 3, (tokens,)).int() if segments else None
    packing = Packing(starts(lengths), max(lengths), position, ids, rotary, size**-0.5)
    options = {"angles": position, "segment_ids": ids, "rotary": rotary, "backend": "triton"}
    results = with_gradient(lambda x: rotary_attention(x, *packing[:2], **options), qkv, grad)
    exact = with_gradient(lambda x: attention_reference(x, packing)[0], qkv.double(), grad)
    plain = with_gradient(lambda x: plain_attention(x, packing), qkv, grad)
    for result, truth, in_dtype in zip(results, exact, plain, strict=True):
        assert_as_good_as_reference(result, truth, in_dtype)


@pytest.mark.parametrize(("size", "angles", "rotary"), ANGLES)
def test_every_number_of_angles_matches_float64(size, angles, rotary):
    check([70, 0, 33], size, angles, rotary)


@pytest.mark.parametrize("size", HEAD_SIZES)
def test_short_sequences_without_position(size):
    check([31, 5, 1], size, 0)


@pytest.mark.parametrize("size", [32, 96, 128])
def test_segments_in_bfloat16(size):
    check([66, 9], size, 5, dtype=torch.bfloat16, segments=True)


def test_64_numbers_and_other_angles_take_no_shared_tile():
    """The short kernels split heads where 16 angles end."""
    assert tuple(tiles.pick(tiles.INTERPRETED, 31, shares=False)) == tiles.WALKING
    check([31, 9], 64, 3)


def test_what_is_not_finite_stays_in_its_sequence():
    """The masked last quarter of a tile holds no numbers of the next head."""
    qkv, cu = torch.randn(30, 3, 2, 96).half(), starts([9, 12, 9])
    spoiled = qkv.clone()
    spoiled[12, :, 1] = float("nan")
    out, other = (rotary_attention(x, cu, 12, backend="triton") for x in (qkv, spoiled))
    assert torch.equal(out[:9], other[:9])
    assert torch.equal(out[21:], other[21:])
    assert torch.equal(out[:, 0], other[:, 0])


def apart(q, kv, arguments, rotary="reserve"):
    return place_apart(q, kv, CrossPacking(**arguments, rotary=rotary, scale=1.0))


@pytest.mark.parametrize("rotary", ["reserve", "standard"])
@pytest.mark.parametrize(("size", "angles"), [(64, 16), (96, 31), (128, 64)])
def test_placing_queries_and_keys_apart_matches_float64(rotary, size, angles):
    q, kv, _, arguments = cross_problem([70, 3], [5, 80], torch.bfloat16, heads=3, kv_heads=1, size=size, angles=angles)
    leaves = [x.clone().requires_grad_() for x in (q, kv)]
    placed = apart(*leaves, arguments, rotary)
    expected = apart(q.double(), kv.double(), arguments, rotary)
    for result, truth in zip(placed, expected, strict=True):
        assert_as_good_as_reference(result.detach(), truth, truth.bfloat16())
    grads = torch.autograd.grad([x.float().sum() for x in placed], leaves)
    for x, grad, position in zip((q, kv[:, 0]), (grads[0], grads[1][:, 0]), ("angles", "angles_k"), strict=True):
        truth = apply_rotary(torch.ones_like(x, dtype=torch.float64), arguments[position], rotary, transpose=True)
        assert_as_good_as_reference(grad, truth, truth.bfloat16())
    assert placed[2].data_ptr() == leaves[1][:, 1].data_ptr()


def test_placed_rows_may_have_any_strides():
    x, angles = torch.randn(14, 2, 96).bfloat16(), torch.randn(14, 31)
    strided = torch.stack((x, x), dim=-1)[..., 0]
    assert torch.equal(place_rows(x, angles, "reserve"), place_rows(strided, angles, "reserve"))


def test_another_librarys_attention_of_what_was_placed():
    """As a GPU's back ends do it, with the reference in the library's place."""
    q, kv, grad, arguments = cross_problem([7, 3], [5, 0], torch.bfloat16, heads=4)
    packing = CrossPacking(**arguments, rotary="reserve", scale=0.125)

    def attend(q, k, v, packing):
        plain = packing._replace(angles=None, angles_k=None)
        return cross_attention_reference(q, torch.stack((k, v), 1), plain)[0]

    out = _of_two("varlen", attend, q.requires_grad_(), kv.requires_grad_(), packing)
    truth = cross_attention_reference(q.double(), kv.double(), packing)[0]
    torch.testing.assert_close(out.double(), truth, atol=0.03, rtol=0.03)
    assert all(x.isfinite().all() for x in torch.autograd.grad(out, (q, kv), grad))


def test_opcheck_of_placing_rows():
    x, angles = torch.randn(14, 2, 96).bfloat16().requires_grad_(), torch.randn(14, 31)
    torch.library.opcheck(torch.ops.reserve_kernels.place_rotary_rows, (x, angles, "standard", False))
