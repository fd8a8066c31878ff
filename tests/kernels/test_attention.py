from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from reserve_kernels import rotary_attention
from reserve_kernels.attention.availability import BACKENDS
from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.reference import apply_rotary, attention_reference
from tests.kernels.attention_cases import STRIDED
from tests.kernels.attention_plain import plain_attention
from tests.kernels.numerics import assert_as_good_as_reference

# Odd and tiny lengths, empty sequences, one sequence, all lengths different, the model's own 31 and 241.
LENGTHS = {
    "one sequence": [37],
    "odd": [31, 37, 1, 2],
    "empty sequences": [0, 5, 0, 0, 7, 0],
    "equal": [31] * 4,
    "equal but apart": [4, 9, 4, 9, 9],
    "vision": [241, 241],
    "nothing": [],
    "only empty": [0, 0],
}

CPU_BACKENDS = ["native", "sdpa"]
"""The back ends that run on a CPU beside the reference."""


def skip_unless_available(backend, dtype=torch.float32):
    reason = BACKENDS[backend].unavailable(torch.device("cpu"), dtype)
    if reason is not None:
        pytest.skip(reason)


def make_inputs(lengths, dtype=torch.float32, heads=2, seed=0, with_angles=True, with_segments=False):
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    qkv = torch.randn(tokens, 3, heads, 64, generator=generator, dtype=torch.float64).to(dtype)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    angles = torch.randn(tokens, 16, generator=generator) * 3 if with_angles else None
    segments = torch.randint(0, 3, (tokens,), generator=generator).int() if with_segments else None
    return qkv, cu_seqlens, max([0, *lengths]), {"angles": angles, "segment_ids": segments}


def reference(qkv, cu_seqlens, angles, segment_ids, rotary="reserve", scale=0.125):
    return attention_reference(qkv, Packing(cu_seqlens, len(qkv), angles, segment_ids, rotary, scale))[0]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_forward_and_gradient_match_float64(lengths, dtype, backend):
    skip_unless_available(backend, dtype)
    qkv, cu, longest, extras = make_inputs(lengths, dtype)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(qkv.shape[0], *qkv.shape[2:], generator=generator, dtype=torch.float64).to(dtype)
    results = []
    for inputs, run in [
        (qkv.clone(), lambda x: rotary_attention(x, cu, longest, **extras, backend=backend)),
        (qkv.double(), lambda x: reference(x, cu, **extras)),
        (qkv.clone(), lambda x: plain_attention(x, Packing(cu, longest, *extras.values(), "reserve", 0.125))),
    ]:
        out = run(inputs.requires_grad_())
        (gradient,) = torch.autograd.grad(out, inputs, grad.to(out.dtype), allow_unused=True)
        results.append((out.detach(), torch.zeros_like(inputs) if gradient is None else gradient))
    for out, truth, plain in zip(*results, strict=True):
        assert_as_good_as_reference(out, truth, plain)


@pytest.mark.parametrize("largest", [1, 100, 3000, 60_000])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("with_angles", [True, False])
def test_the_reference_holds_the_largest_numbers_of_half_precision(largest, dtype, with_angles):
    """Scores of a few hundred overflow float16 before they are scaled, and bfloat16 has two digits of them."""
    qkv, cu, longest, extras = make_inputs([7, 33], torch.float64, with_angles=with_angles)
    qkv = (qkv.clamp(-3, 3) / 3 * largest).to(dtype)
    grad = torch.randn(qkv.shape[0], *qkv.shape[2:]).to(dtype)
    results = []
    for cast in (dtype, torch.float64):
        x = qkv.to(cast).requires_grad_()
        out = rotary_attention(x, cu, longest, **extras, backend="reference")
        results.append((out.detach(), torch.autograd.grad(out, x, grad.to(cast))[0]))
    for out, truth in zip(*results, strict=True):
        fits = truth.abs() < torch.finfo(dtype).max
        error = (out[fits].double() - truth[fits]).abs().max()
        assert error <= torch.finfo(dtype).eps * truth[fits].abs().max()


@pytest.mark.parametrize("rotary", ["reserve", "standard"])
@pytest.mark.parametrize("with_angles", [True, False])
@pytest.mark.parametrize("with_segments", [True, False])
def test_every_option_matches_the_reference(rotary, with_angles, with_segments):
    lengths = [31, 4, 0, 4, 17]
    qkv, cu, longest, extras = make_inputs(lengths, torch.float64, with_angles=with_angles, with_segments=with_segments)
    out = rotary_attention(qkv, cu, longest, rotary=rotary, scale=0.3, **extras)
    torch.testing.assert_close(out, reference(qkv, cu, **extras, rotary=rotary, scale=0.3))


def test_reference_is_attention_under_the_mask():
    """Against textbook attention with one dense mask over all tokens, written out here."""
    qkv, cu, _, extras = make_inputs([5, 3, 6], torch.float64, with_segments=True)
    sequence = torch.repeat_interleave(torch.arange(3), torch.tensor([5, 3, 6]))
    mask = (sequence[:, None] == sequence) & (extras["segment_ids"][:, None] == extras["segment_ids"])
    q, k, v = (
        apply_rotary(qkv[:, 0], extras["angles"], "reserve"),
        apply_rotary(qkv[:, 1], extras["angles"], "reserve"),
        qkv[:, 2],
    )
    scores = torch.einsum("qhd,khd->hqk", q, k).mul(0.125).masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(reference(qkv, cu, **extras), torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))


def test_diagonal_rotary_scales_pairs():
    x = torch.ones(1, 1, 64, dtype=torch.float64)
    angles = torch.full((1, 16), 0.7)
    out = apply_rotary(x, angles, "reserve")[0, 0]
    sin, cos = angles[0, 0].double().sin(), angles[0, 0].double().cos()
    torch.testing.assert_close(
        out[:32].view(16, 2), torch.stack((sin - cos, sin + cos)).float().double().expand(16, 2), atol=1e-6, rtol=0
    )
    assert (out[32:] == 1).all()


def test_standard_rotary_keeps_norms():
    x = torch.randn(7, 2, 64, dtype=torch.float64)
    out = apply_rotary(x, torch.randn(7, 16), "standard")
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", [*CPU_BACKENDS, "reference"])
def test_opcheck(backend):
    skip_unless_available(backend)
    qkv, cu, longest, extras = make_inputs([5, 0, 9], with_segments=True)
    torch.library.opcheck(
        torch.ops.reserve_kernels.rotary_attention,
        (qkv.requires_grad_(), cu, longest, extras["angles"], extras["segment_ids"], "reserve", 0.125, backend),
    )


def test_compiles_as_one_graph_with_gradient():
    qkv, cu, longest, extras = make_inputs([5, 9])
    compiled = torch.compile(lambda x: rotary_attention(x * 2, cu, longest, **extras).square().sum(), fullgraph=True)
    x = qkv.clone().requires_grad_()
    y = qkv.clone().requires_grad_()
    compiled(x).backward()
    rotary_attention(y * 2, cu, longest, **extras).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_one_graph_serves_batches_of_other_shapes():
    counter = CompileCounterWithBackend("aot_eager")

    def loss(qkv, cu, longest, angles, ids):
        return rotary_attention(qkv, cu, longest, angles=angles, segment_ids=ids).square().sum()

    compiled = torch.compile(loss, backend=counter, fullgraph=True, dynamic=True)
    # No size of the first batch is 3, the second of qkv: sizes that are equal then would be taken to be so always.
    for lengths in ([5, 9, 1, 6], [7, 3, 12], [4, 4, 20, 31, 2]):
        qkv, cu, longest, extras = make_inputs(lengths, with_segments=True)
        x = qkv.clone().requires_grad_()
        y = qkv.clone().requires_grad_()
        compiled(x, cu, longest, *extras.values()).backward()
        loss(y, cu, longest, *extras.values()).backward()
        torch.testing.assert_close(x.grad, y.grad)
    assert counter.frame_count == 1


def test_autocast_lowers_the_dtype():
    qkv, cu, longest, extras = make_inputs([5, 9])
    with torch.autocast("cpu", torch.bfloat16):
        out = rotary_attention(qkv, cu, longest, **extras)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, rotary_attention(qkv.bfloat16(), cu, longest, **extras))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("layout", STRIDED.values(), ids=STRIDED.keys())
@pytest.mark.parametrize("with_angles", [True, False])
def test_strided_qkv(backend, layout, with_angles):
    skip_unless_available(backend)
    qkv, cu, longest, extras = make_inputs([5, 9], with_angles=with_angles)
    grad = torch.randn(14, 2, 64)
    results = []
    for x, of_out in ((qkv, grad), (layout(qkv), layout(grad))):
        x.requires_grad_()
        out = rotary_attention(x, cu, longest, **extras, backend=backend)
        results.append((out.detach(), torch.autograd.grad(out, x, of_out)[0]))
    assert x.stride(-1) > 1
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_two_runs_give_the_same_bits(backend):
    skip_unless_available(backend)
    qkv, cu, longest, extras = make_inputs([31, 37, 64])
    runs = []
    for _ in range(2):
        x = qkv.clone().requires_grad_()
        out = rotary_attention(x, cu, longest, **extras, backend=backend)
        runs.append((out.detach(), torch.autograd.grad(out.sum(), x)[0]))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_sequences_do_not_see_each_other(backend):
    skip_unless_available(backend)
    qkv, cu, longest, extras = make_inputs([7, 9])
    changed = qkv.clone()
    changed[7:] = torch.randn_like(changed[7:])
    out, other = (rotary_attention(x, cu, longest, **extras, backend=backend) for x in (qkv, changed))
    assert torch.equal(out[:7], other[:7])
    assert not torch.equal(out[7:], other[7:])


def test_double_backward_is_refused():
    qkv, cu, longest, extras = make_inputs([3])
    x = qkv.requires_grad_()
    (grad,) = torch.autograd.grad(rotary_attention(x, cu, longest, **extras).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="rotary_attention has no double backward"):
        torch.autograd.grad(grad.sum(), x)


def test_angles_get_no_gradient():
    qkv, cu, longest, extras = make_inputs([3])
    angles = extras["angles"].requires_grad_()
    out = rotary_attention(qkv.requires_grad_(), cu, longest, angles=angles)
    assert torch.autograd.grad(out.sum(), angles, allow_unused=True) == (None,)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_bad_numbers_stay_in_their_sequence(backend):
    skip_unless_available(backend)
    qkv, cu, longest, extras = make_inputs([7, 7, 9])
    spoiled = qkv.clone()
    spoiled[9, 2] = float("nan")
    out, other = (rotary_attention(x, cu, longest, **extras, backend=backend) for x in (qkv, spoiled))
    assert torch.equal(out[:7], other[:7])
    assert torch.equal(out[14:], other[14:])
    assert other[7:14].isnan().any()


BAD = {
    "qkv type": (lambda a: a | {"qkv": [1]}, TypeError, "qkv must be a torch.Tensor; got list"),
    "qkv dtype": (lambda a: a | {"qkv": a["qkv"].int()}, TypeError, "qkv must have dtype .*got int32"),
    "qkv shape": (lambda a: a | {"qkv": a["qkv"][..., :48]}, ValueError, "qkv must be .*heads, 32, 64, 96 or 128.*48"),
    "cu dtype": (lambda a: a | {"cu_seqlens": a["cu_seqlens"].long()}, TypeError, "cu_seqlens must have dtype int32"),
    "cu shape": (lambda a: a | {"cu_seqlens": a["cu_seqlens"][None]}, ValueError, "cu_seqlens must be"),
    "angles of none": (lambda a: a | {"angles": a["angles"][:, :0]}, ValueError, r"angles must be \[14, 1 to 32\].*64"),
    "angles of too many": (lambda a: a | {"angles": torch.zeros(14, 33)}, ValueError, r"1 to 32.*got \(14, 33\)"),
    "angles of other tokens": (lambda a: a | {"angles": a["angles"][:9]}, ValueError, r"\[14, 1 to 32\].*14 tokens"),
    "angles dtype": (
        lambda a: a | {"angles": a["angles"].half()},
        TypeError,
        "angles must have dtype float32, float64",
    ),
    "for keys": (lambda a: a | {"angles_k": a["angles"]}, ValueError, "angles_k needs kv"),
    "rotary": (lambda a: a | {"rotary": "neox"}, ValueError, "rotary must be 'reserve' or 'standard'; got 'neox'"),
    "segments": (lambda a: a | {"segment_ids": torch.zeros(3).int()}, ValueError, "segment_ids must be"),
    "max_seqlen": (lambda a: a | {"max_seqlen": -1}, ValueError, "max_seqlen must be at least 0; got -1"),
    "max_seqlen tensor": (lambda a: a | {"max_seqlen": torch.tensor(9)}, TypeError, "max_seqlen must be an int; got T"),
    "max_seqlen text": (lambda a: a | {"max_seqlen": "9"}, TypeError, "max_seqlen must be an int; got str"),
    "max_seqlen float": (lambda a: a | {"max_seqlen": 9.0}, TypeError, "max_seqlen must be an int; got float"),
    "max_seqlen too small": (lambda a: a | {"max_seqlen": 8}, ValueError, "max_seqlen .* sequence 1 has 9 .* got 8"),
    "max_seqlen by far": (lambda a: a | {"max_seqlen": 6}, ValueError, "max_seqlen .* 2 sequences.* 14 tokens.* got 6"),
    "cu start": (
        lambda a: a | {"cu_seqlens": a["cu_seqlens"] + 1},
        ValueError,
        "cu_seqlens must go from 0 to 14.*got 1 to 15",
    ),
    "cu end": (lambda a: a | {"cu_seqlens": torch.tensor([0, 5, 13]).int()}, ValueError, "from 0 to 14.*got 0 to 13"),
    "cu falls": (
        lambda a: a | {"cu_seqlens": torch.tensor([0, 9, 5, 14]).int()},
        ValueError,
        "cu_seqlens must not decrease; got 5 after 9 at sequence 1",
    ),
    "no sequences": (lambda a: a | {"cu_seqlens": torch.zeros(1).int()}, ValueError, "longest of 0 sequences"),
    "scale": (lambda a: a | {"scale": -0.1}, ValueError, "scale must be positive and finite; got -0.1"),
    "scale infinite": (lambda a: a | {"scale": float("inf")}, ValueError, "scale must be positive and finite; got inf"),
    "scale text": (lambda a: a | {"scale": "0.1"}, TypeError, "scale must be a number; got str"),
    "scale tensor": (lambda a: a | {"scale": torch.tensor(0.1)}, TypeError, "scale must be a number.* got Tensor"),
    "backend": (lambda a: a | {"backend": "cudnn9"}, ValueError, "backend must be 'auto' or one of 'triton'"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_named(change, error, message):
    qkv, cu, longest, extras = make_inputs([5, 9])
    arguments = change({"qkv": qkv, "cu_seqlens": cu, "max_seqlen": longest, **extras})
    with pytest.raises(error, match=message):
        rotary_attention(**arguments)
