"""The native passes of rotary_attention with each instruction set, and what they refuse."""

from __future__ import annotations

import functools

import pytest
import torch

import reserve_kernels.attention as attention_module
from reserve_kernels import native, rotary_attention
from reserve_kernels.attention.native import (
    attention_native,
    attention_native_backward,
    cross_attention_native,
    cross_attention_native_backward,
)
from reserve_kernels.attention.packing import CrossPacking, Packing
from reserve_kernels.attention.reference import (
    attention_reference,
    attention_reference_backward,
    cross_attention_reference,
)
from reserve_kernels.native import Attention
from tests.kernels.attention_cases import ANGLES, CROSS_LENGTHS, cross_problem, exact_and_plain
from tests.kernels.attention_plain import plain_attention
from tests.kernels.numerics import assert_as_good_as_reference

pytestmark = pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))
every_isa = pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)

LENGTHS = {
    "1 to 70": list(range(1, 71)),  # all remainders of vectors, tiles and blocks
    "vision": [241, 241],
    "longer than a chunk of keys": [640, 0, 31, 300],
    "longer than a part of queries": [1100],
    "empty": [0, 3, 0, 0, 17, 0],
}


def draw(
    lengths, dtype=torch.float32, heads=2, angles=True, segments=False, rotary="reserve", scale=0.125, size=3.0,
    head_size=64, token_angles=16,
):  # fmt: skip
    """qkv, the output's gradient and the packing of sequences of `lengths`."""
    tokens = sum(lengths)
    qkv, grad = (torch.randn(tokens, *shape, heads, head_size).to(dtype) for shape in ((3,), ()))
    packing = Packing(
        torch.tensor([0, *lengths]).cumsum(0).int(),
        max(lengths, default=0),
        torch.randn(tokens, token_angles) * size if angles else None,
        torch.randint(0, 3, (tokens,)).int() if segments else None,
        rotary,
        scale,
    )
    return qkv, grad, packing


def run_with(isa, threads=1):
    """Runs a problem with one instruction set; skips the test without it."""
    if not native.library().has_isa(isa):
        pytest.skip(f"this processor has no {isa}")
    return lambda problem: native.library().attention_cpu(problem, threads, isa)


def both_passes(inputs, isa, threads=1):
    """[output, statistics, gradient of qkv]"""
    qkv, grad, packing = inputs
    run = run_with(isa, threads)
    out, lse = attention_native(qkv, packing, run)
    return [out, lse, attention_native_backward(grad, qkv, out, lse, packing, run)]


def check(inputs, isa, threads=1):
    """Holds both passes to the rule for accuracy, and the statistics to a few roundings."""
    qkv, grad, packing = inputs
    out, lse, gradient = both_passes(inputs, isa, threads)
    truth, exact_lse = attention_reference(qkv.double(), packing)
    exact_gradient = attention_reference_backward(grad.double(), qkv.double(), truth, exact_lse, packing)
    leaf = qkv.clone().requires_grad_()
    plain = plain_attention(leaf, packing)
    (plain_gradient,) = torch.autograd.grad(plain, leaf, grad)
    assert_as_good_as_reference(out, truth, plain.detach())
    assert_as_good_as_reference(gradient, exact_gradient, plain_gradient)
    # Each score is a sum of 64 products of rounded numbers.
    torch.testing.assert_close(lse.double(), exact_lse, rtol=64 * torch.finfo(torch.float32).eps, atol=1e-5)


@every_isa
@every_dtype
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_both_passes_are_as_good_as_plain_attention(isa, dtype, lengths):
    check(draw(lengths, dtype), isa)


@every_isa
@every_dtype
@pytest.mark.parametrize("rotary", ["reserve", "standard"])
@pytest.mark.parametrize("angles", [True, False])
@pytest.mark.parametrize("segments", [True, False])
def test_every_option(isa, dtype, rotary, angles, segments):
    check(draw([31, 4, 0, 130, 17], dtype, 3, angles, segments, rotary, scale=0.2), isa)


@every_isa
@every_dtype
@pytest.mark.parametrize(("head_size", "token_angles"), ANGLES)
def test_every_head_size_and_number_of_angles(isa, dtype, head_size, token_angles):
    rotary, shape = ("reserve", "standard")[token_angles % 2], {"head_size": head_size, "token_angles": token_angles}
    check(draw([31, 4, 0, 130, 17], dtype, rotary=rotary, scale=head_size**-0.5, **shape), isa)


@functools.lru_cache(maxsize=9)
def draw_apart(lengths, dtype, head_size, heads, kv_heads, seed):
    """Arguments and `exact_and_plain` of them, kept for the instruction sets, which vary first."""
    shape = {"heads": heads, "kv_heads": kv_heads, "size": head_size, "segments": head_size == 64}
    q, kv, grad, arguments = cross_problem(*CROSS_LENGTHS[lengths], dtype, seed=seed, **shape)
    packing = CrossPacking(**arguments, rotary="standard", scale=head_size**-0.5)
    return (q, kv, grad, packing), exact_and_plain(q, kv, grad, packing)


@every_isa
@every_dtype
@pytest.mark.parametrize("lengths", CROSS_LENGTHS)
@pytest.mark.parametrize(("head_size", "heads", "kv_heads"), [(64, 2, 2), (32, 6, 2), (96, 3, 1), (128, 2, 1)])
def test_keys_of_other_tokens(isa, dtype, lengths, head_size, heads, kv_heads):
    problem = lengths, dtype, head_size, heads, kv_heads
    (q, kv, grad, packing), expected = draw_apart(*problem, 0)
    others = [draw_apart(*problem, seed)[1] for seed in range(1, 9)]
    run = run_with(isa)
    out, lse = cross_attention_native(q, kv, packing, run)
    found = cross_attention_native_backward(grad, q, kv, out, lse, packing, run)
    for i, (result, (exact, plain)) in enumerate(zip((out, *found), expected, strict=True)):
        assert_as_good_as_reference(result, exact, plain, [other[i] for other in others])
    _, exact_lse = cross_attention_reference(q.double(), kv.double(), packing)
    torch.testing.assert_close(lse.double(), exact_lse, rtol=64 * torch.finfo(torch.float32).eps, atol=1e-5)


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("lengths", [([640], [300]), ([1], [900]), ([700], [3]), ([31] * 20, [9] * 20)], ids=str)
def test_bits_of_shared_keys_do_not_depend_on_threads(threads, lengths):
    q, kv, grad, arguments = cross_problem(*lengths, heads=6, kv_heads=2)
    packing = CrossPacking(**arguments, rotary="reserve", scale=0.125)
    results = []
    for count in (1, threads):
        run = run_with("baseline", count)
        out, lse = cross_attention_native(q, kv, packing, run)
        results.append([out, lse, *cross_attention_native_backward(grad, q, kv, out, lse, packing, run)])
    assert all(torch.equal(one, many) for one, many in zip(*results, strict=True))


@every_isa
@pytest.mark.parametrize("segments", [False, True])
def test_odd_numbers_of_heads_and_threads(isa, segments):
    """Heads that units do not divide; a single long sequence, whose backward pass is split by gradient."""
    check(draw([31] * 9 + [5], heads=13, segments=segments), isa, threads=3)
    check(draw([900], heads=1, segments=segments), isa, threads=5)


@every_isa
@pytest.mark.parametrize("rotary", ["reserve", "standard"])
@pytest.mark.parametrize("size", [100.0, 5e3, 1e6])
def test_large_angles(isa, rotary, size):
    """Beyond 8192 the C library's sine and cosine replace ours."""
    check(draw([70], rotary=rotary, size=size), isa)


@every_isa
def test_segments_of_one_token(isa):
    """Also where no key of the first chunk belongs to a query's segment."""
    qkv, grad, packing = draw([700, 9])
    packing = packing._replace(segment_ids=torch.arange(709).int())
    out, lse, _ = both_passes((qkv, grad, packing), isa)
    torch.testing.assert_close(out, qkv[:, 2], rtol=0, atol=0)
    assert lse.isfinite().all()
    check((qkv, grad, packing), isa)


@every_isa
@every_dtype
def test_the_gradient_of_a_weight_of_one_is_exactly_zero(isa, dtype):
    """A sequence of one token: its output is its value, whatever the query and the key."""
    qkv, grad, packing = draw([1, 1, 1], dtype)
    out, _, gradient = both_passes((qkv, grad, packing), isa)
    assert torch.equal(out, qkv[:, 2])
    assert torch.equal(gradient[:, 2], grad)
    assert (gradient[:, :2] == 0).all()


@every_isa
def test_scores_far_apart_do_not_overflow(isa):
    """Weights of 1 and of 0, and maxima that rise and fall along the keys."""
    qkv, grad, packing = draw([600, 40], angles=False)
    out, lse, gradient = both_passes((qkv * 100, grad, packing), isa)
    assert all(tensor.isfinite().all() for tensor in (out, lse, gradient))
    truth, _ = attention_reference(qkv.double() * 100, packing)
    # Scores of up to 3e5 have roundings of 0.03: some weights differ, but few by much.
    assert (out - truth).abs().mean() < 2e-3


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("lengths", [[640], [31] * 40, [241, 3, 500]], ids=str)
@pytest.mark.parametrize("heads", [1, 5])
def test_bits_do_not_depend_on_threads(threads, lengths, heads):
    inputs = draw(lengths, heads=heads, segments=True)
    for one, many in zip(both_passes(inputs, "baseline"), both_passes(inputs, "baseline", threads), strict=True):
        assert torch.equal(one, many)


@every_isa
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["q", "k", "v", "grad", "angles"])
@pytest.mark.parametrize("lengths", [[7, 9, 5], [70, 300, 70]], ids=str)
def test_what_is_not_finite_stays_in_its_sequence(isa, bad, name, lengths):
    qkv, grad, packing = draw(lengths)
    expected = both_passes((qkv, grad, packing), isa)
    targets = {part: qkv[:, i] for i, part in enumerate("qkv")} | {"grad": grad, "angles": packing.angles}
    targets[name].view(len(qkv), -1)[lengths[0] + 2, 5] = bad
    found = both_passes((qkv, grad, packing), isa)
    own = slice(lengths[0], lengths[0] + lengths[1])
    for before, after in zip(expected, found, strict=True):
        assert torch.equal(before[: own.start], after[: own.start])
        assert torch.equal(before[own.stop :], after[own.stop :])
    assert not found[2][own].isfinite().all()
    if name != "grad":
        assert not found[0][own].isfinite().all()


@every_isa
def test_strided_qkv_and_gradient(isa):
    qkv, grad, packing = draw([31, 80])
    strided = torch.stack((qkv, qkv), dim=-1)[..., 0]
    expanded = grad[:1, :1].expand_as(grad)
    expected = both_passes((qkv, expanded.contiguous(), packing), isa)
    for plain, found in zip(expected, both_passes((strided, expanded, packing), isa), strict=True):
        assert found.is_contiguous()
        assert torch.equal(plain, found)


@every_isa
@every_dtype
@pytest.mark.parametrize("shift", [1, 3])
def test_unaligned_tensors_and_nothing_beside_them(isa, dtype, shift):
    inputs, around = draw([7, 70], dtype), []

    def run(problem: Attention):
        native.library().attention_cpu(problem, 1, isa)

    def shifted(problem: Attention, names, count, kind):
        """Has the `count` numbers of a result, and its parts, written into the middle of a larger array."""
        buffer = torch.full((count + 8,), 77.0, dtype=kind)
        first = getattr(problem, names[0])
        for name in names:
            setattr(problem, name, buffer[shift:].data_ptr() + getattr(problem, name) - first)
        around.append((buffer, count))

    def run_forward(problem: Attention):
        numbers = problem.tokens * problem.heads * 64
        shifted(problem, ["out"], numbers, dtype)
        shifted(problem, ["lse"], problem.tokens * problem.heads, torch.float32)
        run(problem)

    def run_backward(problem: Attention):
        shifted(problem, ["grad_q", "grad_k", "grad_v"], 3 * problem.tokens * problem.heads * 64, dtype)
        run(problem)

    expected = both_passes(inputs, isa)
    qkv, grad, packing = inputs
    qkv, grad = (torch.cat((t.new_zeros(shift), t.flatten()))[shift:].view(t.shape) for t in (qkv, grad))
    attention_native(qkv, packing, run_forward)
    attention_native_backward(grad, qkv, *expected[:2], packing, run_backward)
    for (buffer, count), result in zip(around, expected, strict=True):
        assert torch.equal(buffer[shift : shift + count].view(result.shape), result)
        assert (buffer[:shift] == 77).all()
        assert (buffer[shift + count :] == 77).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("longest", [64, 65])
@pytest.mark.parametrize("avx2", [True, False])
def test_auto_leaves_long_sequences_to_sdpa_without_avx2(monkeypatch, dtype, longest, avx2):
    monkeypatch.setattr(native, "has_avx2", lambda: avx2)
    called = []
    monkeypatch.setattr(attention_module, "attention", lambda *a: called.append(a[-1]) or (None, None))
    qkv, _, packing = draw([longest], dtype)
    for backend in ("auto", "native"):
        rotary_attention(qkv, packing.cu_seqlens, longest, backend=backend)
    slow = longest == 65 and not avx2 and dtype == torch.float32
    assert called == ["sdpa" if slow else "native", "native"]


def problem(backward=True, **changes) -> tuple[Attention, list[torch.Tensor]]:
    """A problem of 2 sequences of 3 queries and 4 keys together and one head, with `changes`, and its memory."""
    shapes = {"q": (3, 1, 64), "k": (4, 2, 64), "v": (4, 2, 64), "angles": (3, 16), "angles_k": (4, 16)}
    shapes |= {"grad": (3, 1, 64), "out": (3, 1, 64), "lse": (3, 1), "grad_q": (3, 1, 64)}
    shapes |= {"grad_k": (4, 2, 64), "grad_v": (4, 2, 64)}
    memory = {name: torch.zeros(shape) for name, shape in shapes.items()}
    memory |= {"cu_seqlens": torch.tensor([0, 1, 3]).int(), "cu_seqlens_k": torch.tensor([0, 3, 4]).int()}
    memory |= {"segment_ids": torch.zeros(3).int(), "segment_ids_k": torch.zeros(4).int()}
    sizes = {"tokens": 3, "tokens_k": 4, "sequences": 2, "heads": 1, "kv_heads": 1, "q_stride": 64, "kv_stride": 128}
    settings = {"head_size": 64, "token_angles": 16, "scale": 0.125, "rotary": 0, "dtype": native.FLOAT32}
    if not backward:
        memory |= dict.fromkeys(("grad", "grad_q", "grad_k", "grad_v"))
    fields = memory | sizes | settings | changes
    pointers = {name: value.data_ptr() if isinstance(value, torch.Tensor) else value for name, value in fields.items()}
    return Attention(**pointers), list(fields.values())


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": 2},
        {"rotary": 2},
        {"tokens": -1},
        {"tokens": 4},
        {"tokens": 2**40},
        {"tokens_k": -1},
        {"tokens_k": 5},
        {"heads": -1},
        {"heads": 2**40},
        {"heads": 2},
        {"heads": 2, "kv_heads": 3, "q_stride": 128},
        {"kv_heads": 0},
        {"kv_heads": -1},
        {"q_stride": 63},
        {"q_stride": 2**40},
        {"kv_stride": 63},
        {"kv_stride": 2**40},
        {"head_size": 48},
        {"head_size": 0},
        {"token_angles": 0},
        {"token_angles": 33},
        {"sequences": -1},
        {"cu_seqlens": torch.tensor([1, 2, 3]).int()},
        {"cu_seqlens": torch.tensor([0, 4, 3]).int()},
        {"cu_seqlens": torch.tensor([0, -1, 3]).int()},
        {"cu_seqlens": None},
        {"cu_seqlens_k": torch.tensor([0, 5, 4]).int()},
        {"cu_seqlens_k": None},
        {"angles_k": None},
        {"segment_ids": None},
        {"q": None},
        {"k": None},
        {"v": None},
        {"out": None},
        {"lse": None},
    ],
    ids=str,
)
def test_problems_that_c_cannot_use_are_rejected(backward, changes):
    valid, _kept = problem(backward)
    native.library().attention_cpu(valid, 1)
    spoiled, _kept = problem(backward, **changes)
    with pytest.raises(ValueError, match="attention_cpu: invalid argument"):
        native.library().attention_cpu(spoiled, 1)


@pytest.mark.parametrize("name", ["grad", "grad_q", "grad_k", "grad_v"])
def test_a_gradient_needs_a_place(name):
    spoiled, _kept = problem(**{name: None})
    with pytest.raises(ValueError, match="attention_cpu: invalid argument"):
        native.library().attention_cpu(spoiled, 1)


def test_fewer_threads_than_one_are_refused():
    with pytest.raises(ValueError, match="attention_cpu: invalid argument"):
        native.library().attention_cpu(problem()[0], 0)
