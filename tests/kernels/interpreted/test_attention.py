"""The Triton kernels of rotary_attention, interpreted, against the reference in float64."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from reserve_kernels import rotary_attention
from reserve_kernels.attention import tiles, tune
from reserve_kernels.attention import triton as triton_launcher
from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.placing import place
from reserve_kernels.attention.reference import attention_reference, rotate_qk
from reserve_kernels.attention.triton_blocks import ROTARY, rotary_table_kernel
from tests.kernels.attention_plain import plain_attention
from tests.kernels.numerics import assert_as_good_as_reference

# Short ones share a tile of 64; the others have a tile for themselves and more.
LENGTHS = {
    "audio": [31, 31, 31],
    "spans": [17, 4, 16, 9, 1, 2],
    "one token each": [1] * 18,
    "empty sequences": [0, 5, 0, 0, 7, 0],
    "exactly one tile": [64],
    "one more than a tile": [65],
    "two blocks": [130, 1, 37],
    "long and empty": [0, 128, 0],
    "nothing": [],
    "only empty": [0, 0],
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def make_inputs(lengths, dtype, heads=2, seed=0, segments=False):
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    qkv = torch.randn(tokens, 3, heads, 64, generator=generator, dtype=torch.float64).to(dtype)
    grad = torch.randn(tokens, heads, 64, generator=generator, dtype=torch.float64).to(dtype)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    angles = torch.randn(tokens, 16, generator=generator) * 3
    ids = torch.randint(0, 3, (tokens,), generator=generator).int() if segments else None
    return qkv, grad, cu_seqlens, max([0, *lengths]), angles, ids


def run(function, qkv, grad):
    inputs = qkv.clone().requires_grad_()
    out = function(inputs)
    (gradient,) = torch.autograd.grad(out, inputs, grad.to(out.dtype))
    return out.detach(), gradient


def check(lengths, dtype, *, heads=2, with_angles=True, segments=False, rotary="reserve", scale=0.125, slack=0):
    qkv, grad, cu, longest, angles, ids = make_inputs(lengths, dtype, heads, segments=segments)
    angles = angles if with_angles else None
    extras = {"angles": angles, "segment_ids": ids, "rotary": rotary, "scale": scale}

    packing = Packing(cu, longest, angles, ids, rotary, scale)
    results = run(lambda x: rotary_attention(x, cu, longest + slack, backend="triton", **extras), qkv, grad)
    truths = run(lambda x: attention_reference(x, packing)[0], qkv.double(), grad)
    plain = run(lambda x: plain_attention(x, packing), qkv, grad)
    for result, truth, in_dtype in zip(results, truths, plain, strict=True):
        assert_as_good_as_reference(result, truth, in_dtype)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forward_and_gradient_match_float64(lengths, dtype):
    check(lengths, dtype)


# One batch of the short kernels, one of the long.
@pytest.mark.parametrize("lengths", [[31, 17, 0, 31], [70, 33]], ids=["short", "long"])
@pytest.mark.parametrize("rotary", ["reserve", "standard"])
@pytest.mark.parametrize("segments", [False, True])
def test_every_option_matches_float64(lengths, rotary, segments):
    check(lengths, torch.float16, rotary=rotary, segments=segments, scale=0.3)


@pytest.mark.parametrize("lengths", [[31, 17], [70, 33]], ids=["short", "long"])
def test_without_position(lengths):
    check(lengths, torch.float16, with_angles=False)


def test_a_bound_above_the_longest_sequence_changes_nothing():
    check([31, 9], torch.float16, slack=500)


@pytest.mark.parametrize("tile", tiles.CANDIDATES[90]["forward"], ids=str)
def test_every_forward_tile(tile, monkeypatch):
    monkeypatch.setitem(tiles.CHOSEN[90]["medium"], "forward", tile)
    check([135, 70], torch.float16, heads=1)


@pytest.mark.parametrize("kernel", ["dq", "dkv"])
def test_every_backward_tile(kernel, monkeypatch):
    for tile in tiles.CANDIDATES[90][kernel]:
        monkeypatch.setitem(tiles.CHOSEN[90]["medium"], kernel, tile)
        check([135, 70], torch.float16, heads=1)


@pytest.mark.parametrize(("rotary", "segments"), [("reserve", False), ("standard", True)])
def test_long_kernels_with_three_heads_and_an_empty_sequence(rotary, segments):
    check([70, 0, 33], torch.float16, heads=3, rotary=rotary, segments=segments)


def test_scores_far_below_zero_do_not_overflow():
    """A key beyond the end of its sequence scores 0, which is far above -200."""
    qkv, grad, cu, longest, *_ = make_inputs([70], torch.float32)
    qkv[:, 0] = qkv[:, 0].abs() * 6
    qkv[:, 1] = -qkv[:, 1].abs() * 6
    out, gradient = run(lambda x: rotary_attention(x, cu, longest, backend="triton"), qkv, grad)
    assert out.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("length", [9, 70], ids=["short", "long"])
def test_scores_may_be_as_low_as_float32_goes(length):
    """Scores are all -2**106, so that each output is the mean of the values."""
    qkv, _, cu, *_ = make_inputs([length], torch.float32)
    qkv[:, 0], qkv[:, 1] = 2**50, -(2**50)
    out = rotary_attention(qkv, cu, length, backend="triton")
    torch.testing.assert_close(out, qkv[:, 2].mean(0).expand_as(out), atol=1e-5, rtol=0)


@pytest.mark.parametrize("lengths", [[7, 9, 31], [70, 33, 66]], ids=["short", "long"])
def test_sequences_do_not_see_each_other(lengths):
    qkv, _, cu, longest, angles, _ = make_inputs(lengths, torch.float16)
    changed = qkv.clone()
    first, last = cu[1:3].tolist()
    changed[first:last] = torch.randn(last - first, *qkv.shape[1:])
    out, other = (rotary_attention(x, cu, longest, angles=angles, backend="triton") for x in (qkv, changed))
    assert torch.equal(out[:first], other[:first])
    assert torch.equal(out[last:], other[last:])
    assert not torch.equal(out[first:last], other[first:last])


@functools.cache
def finite_results(lengths):
    """Output and gradient of finite float16 inputs."""
    qkv, grad, cu, longest, angles, _ = make_inputs(lengths, torch.float16)
    return run(lambda x: rotary_attention(x, cu, longest, angles=angles, backend="triton"), qkv, grad)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
# 0: queries, 1: keys, 2: values, 3: the output's gradient.
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("lengths", [[7, 9, 31], [70, 33, 66]], ids=["short", "long"])
def test_bad_numbers_stay_in_their_sequence(lengths, bad, part):
    """Sequences that share a tile, too: a weight of 0 times NaN is NaN."""
    qkv, grad, cu, longest, angles, _ = make_inputs(lengths, torch.float16)
    changed, changed_grad = qkv.clone(), grad.clone()
    first, last = cu[1:3].tolist()
    place = (first + 4, 1, slice(None))
    if part == 3:
        changed_grad[place] = bad
    else:
        changed[first + 4, part, 1] = bad
    results = run(lambda x: rotary_attention(x, cu, longest, angles=angles, backend="triton"), changed, changed_grad)
    for clean, spoiled in zip(finite_results(tuple(lengths)), results, strict=True):
        assert torch.equal(clean[:first], spoiled[:first])
        assert torch.equal(clean[last:], spoiled[last:])
    assert not results[1][first:last].isfinite().all()


def test_qkv_and_its_gradient_may_have_any_strides():
    qkv, grad, cu, longest, angles, _ = make_inputs([5, 9], torch.float32)
    strided = torch.stack((qkv, qkv), dim=-1)[..., 0]
    wide = torch.stack((grad, grad), dim=-1)[..., 0]
    results = [
        run(lambda x: rotary_attention(x, cu, longest, angles=angles, backend="triton"), *inputs)
        for inputs in ((qkv, grad), (strided, wide))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("lengths", [[5, 9], [70]], ids=["short", "long"])
def test_the_tuner_runs_every_candidate(lengths, monkeypatch):
    monkeypatch.setattr(tune, "HEADS", 1)
    name = tiles.length_class(max(lengths))
    passes = tune.make_passes(lengths, torch.device("cpu"))
    count = []

    def timer(calls):
        count.append(len([call() for call in calls]))
        return [1.0] * len(calls)

    assert tune.tune_class(name, 90, passes, timer) == tiles.CHOSEN[90][name]
    assert count == [len(tiles.CANDIDATES[90][kernel]) for kernel in tiles.CHOSEN[90][name]]


def placed_with_gradient(qkv, angles, rotary):
    """Queries, keys and values of `place`, and the gradient of a function of them that treats each differently."""
    x = qkv.clone().requires_grad_()
    parts = place(x, angles, rotary)
    total = sum((part.float() * weight).sum() for part, weight in zip(parts, (1.0, -0.5, 2.0), strict=True))
    return [part.detach() for part in parts], torch.autograd.grad(total, x)[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rotary", ["reserve", "standard"])
def test_placing_and_its_gradient_match_float64(rotary, dtype):
    qkv, *_, angles, _ = make_inputs([70, 0, 31], dtype, heads=3)
    parts, gradient = placed_with_gradient(qkv, angles, rotary)
    expected, expected_gradient = placed_with_gradient(qkv.double(), angles, rotary)
    plain = rotate_qk(qkv, angles, rotary).unbind(1)
    for result, truth, in_dtype in zip(parts, expected, plain, strict=True):
        assert_as_good_as_reference(result, truth, in_dtype)
    assert_as_good_as_reference(gradient, expected_gradient, expected_gradient.to(dtype))


def test_placing_takes_any_strides_and_copies_no_values():
    qkv, *_, angles, _ = make_inputs([5, 9], torch.bfloat16)
    expected = placed_with_gradient(qkv, angles, "reserve")
    strided = torch.stack((qkv, qkv), dim=-1)[..., 0]
    for result, other in zip(placed_with_gradient(strided, angles, "reserve"), expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(result, other, strict=True))
    assert place(qkv, angles, "reserve")[2].data_ptr() == qkv[:, 2].data_ptr()


def test_gradients_of_placed_parts_may_have_any_strides():
    qkv, *_, angles, _ = make_inputs([5, 9], torch.bfloat16)
    grads = [torch.randn(14, 2, 64, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(3)]
    results = []
    for passed in (grads, [torch.stack((grad, grad), dim=-1)[..., 0] for grad in grads]):
        x = qkv.clone().requires_grad_()
        results.append(torch.autograd.grad(place(x, angles, "standard"), x, passed)[0])
    assert torch.equal(*results)


def test_placing_no_tokens():
    qkv, *_, angles, _ = make_inputs([], torch.bfloat16)
    parts, gradient = placed_with_gradient(qkv, angles, "reserve")
    assert [part.shape for part in parts] == [(0, 2, 64)] * 3
    assert gradient.shape == qkv.shape


def test_placing_compiles_as_one_graph_with_gradient():
    qkv, *_, angles, _ = make_inputs([5, 9], torch.bfloat16)
    expected = placed_with_gradient(qkv, angles, "reserve")
    x = qkv.clone().requires_grad_()
    compiled = torch.compile(lambda y: place(y, angles, "reserve"), fullgraph=True, backend="aot_eager")(x)
    total = sum((part.float() * weight).sum() for part, weight in zip(compiled, (1.0, -0.5, 2.0), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(compiled, expected[0], strict=True))
    assert torch.equal(torch.autograd.grad(total, x)[0], expected[1])


def test_placing_has_no_double_backward():
    qkv, *_, angles, _ = make_inputs([5], torch.bfloat16)
    x = qkv.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(place(x, angles, "reserve")[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="rotary_attention has no double backward"):
        torch.autograd.grad(gradient.sum(), x)


@pytest.mark.parametrize("rotary", ["reserve", "standard"])
def test_the_table_is_exact_to_rounding(rotary):
    """Around every quarter of the circle, and where the reduction of large angles would show."""
    quarters = torch.arange(-40, 40).float() * (math.pi / 4)
    angles = torch.cat((quarters, torch.randn(400) * 10, torch.randn(160) * 1e5, torch.tensor([0.0, 1e-20] * 8)))
    angles = angles.view(-1, 16)
    table = torch.empty(len(angles), 32)
    constants = {"ROTARY": ROTARY[rotary], "BLOCK": 64, "R": 16, "WIDE": 16}
    rotary_table_kernel[(math.ceil(len(angles) / 64),)](angles, table, len(angles), **constants)
    sin, cos = angles.double().sin(), angles.double().cos()
    expected = torch.stack((sin - cos, sin + cos), -1).flatten(-2) if rotary == "reserve" else torch.cat((cos, sin), 1)
    torch.testing.assert_close(table.double(), expected, atol=2.5e-7, rtol=0)


def test_sequences_whose_offsets_need_more_than_32_bits_are_refused():
    qkv, _, cu, *_ = make_inputs([70], torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_launcher, "LARGEST_OFFSET", 3 * 64 * 2 * 69)
        with pytest.raises(ValueError, match="max_seqlen must be at most 69 with 2 heads in backend 'triton'; got 70"):
            rotary_attention(qkv, cu, 70, backend="triton")


def test_opcheck():
    qkv, _, cu, longest, angles, ids = make_inputs([5, 0, 9], torch.float32, segments=True)
    torch.library.opcheck(
        torch.ops.reserve_kernels.rotary_attention,
        (qkv.requires_grad_(), cu, longest, angles, ids, "reserve", 0.125, "triton"),
    )


def test_opcheck_of_placing():
    qkv, grad, *_, angles, _ = make_inputs([5, 0, 9], torch.bfloat16)
    torch.library.opcheck(torch.ops.reserve_kernels.place_rotary, (qkv, angles, "reserve"))
    torch.library.opcheck(torch.ops.reserve_kernels.place_rotary_backward, (grad, grad, grad, angles, "standard"))
