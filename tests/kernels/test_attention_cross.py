"""rotary_attention of queries over keys of other tokens, and of heads that share keys."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from reserve_kernels import attention, native, rotary_attention
from reserve_kernels.attention.availability import BACKENDS
from reserve_kernels.attention.cross_ops import cross_attention
from reserve_kernels.attention.packing import CrossPacking
from reserve_kernels.attention.reference import apply_rotary, cross_attention_reference
from tests.kernels.attention_cases import (
    CROSS_LENGTHS,
    HEAD_SIZES,
    STRIDED,
    cross_problem,
    exact_and_plain,
    starts,
    with_gradients,
)
from tests.kernels.numerics import assert_as_good_as_reference

CPU_BACKENDS = ["native", "sdpa"]
# Of large scores PyTorch's kernel loses more in float32 than the rule allows.
EXACT = {"native": torch.float32, "sdpa": torch.float64}
every_length = pytest.mark.parametrize("lengths", CROSS_LENGTHS.values(), ids=CROSS_LENGTHS.keys())
every_backend = pytest.mark.parametrize("backend", CPU_BACKENDS)


def skip_unless_available(backend, dtype=torch.float32):
    reason = BACKENDS[backend].unavailable(torch.device("cpu"), dtype)
    if reason is not None:
        pytest.skip(reason)


def packing_of(arguments, rotary="reserve", scale=0.125):
    return CrossPacking(**arguments, rotary=rotary, scale=scale)


def check(backend, lengths, dtype=torch.float32, rotary="reserve", scale=0.125, **shape):
    """Holds output and gradients to the rule for accuracy, with a few draws: these problems are small."""

    def draw(seed):
        q, kv, grad, arguments = cross_problem(*lengths, dtype, seed=seed, **shape)
        return (q, kv, grad, arguments), exact_and_plain(q, kv, grad, packing_of(arguments, rotary, scale))

    (q, kv, grad, arguments), expected = draw(0)
    others = [draw(seed)[1] for seed in range(1, 5)]
    options = {"rotary": rotary, "scale": scale, "backend": backend, **arguments}
    results = with_gradients(lambda q, kv: rotary_attention(q, kv=kv, **options), q, kv, grad)
    for i, (result, (truth, in_dtype)) in enumerate(zip(results, expected, strict=True)):
        assert result.dtype == dtype
        assert_as_good_as_reference(result, truth, in_dtype, [other[i] for other in others])


@every_length
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@every_backend
def test_output_and_gradients_match_float64(backend, lengths, dtype):
    skip_unless_available(backend, dtype)
    check(backend, lengths, dtype)


@pytest.mark.parametrize("size", HEAD_SIZES)
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 1), (3, 3)])
@every_backend
def test_heads_that_share_keys_and_other_head_sizes(backend, size, heads, kv_heads):
    skip_unless_available(backend)
    shape = {"heads": heads, "kv_heads": kv_heads, "size": size, "angles": size // 4 + 1}
    check(backend, ([31, 5, 130], [17, 80, 3]), EXACT[backend], scale=size**-0.5, **shape)


@pytest.mark.parametrize("rotary", ["reserve", "standard"])
@pytest.mark.parametrize("angles", [0, 16])
@pytest.mark.parametrize("segments", [True, False])
@every_backend
def test_every_option(backend, rotary, angles, segments):
    skip_unless_available(backend)
    shape = {"heads": 4, "kv_heads": 2, "angles": angles, "segments": segments}
    check(backend, ([31, 9, 4], [70, 3, 90]), EXACT[backend], rotary=rotary, scale=0.3, **shape)


def test_reference_is_textbook_attention():
    """Against one dense mask over all tokens, written out here."""
    q, kv, _, arguments = cross_problem([5, 3], [4, 6], torch.float64, heads=4, kv_heads=2, segments=True)
    of_query, of_key = (torch.repeat_interleave(torch.arange(2), torch.tensor(n)) for n in ([5, 3], [4, 6]))
    mask = (of_query[:, None] == of_key) & (arguments["segment_ids"][:, None] == arguments["segment_ids_k"])
    k = apply_rotary(kv[:, 0], arguments["angles_k"], "reserve")[:, [0, 0, 1, 1]]
    scores = torch.einsum("qhd,khd->hqk", apply_rotary(q, arguments["angles"], "reserve"), k) * 0.125
    weights = scores.masked_fill(~mask, -1e30).softmax(-1) * mask
    expected = torch.einsum("hqk,khd->qhd", weights, kv[:, 1, [0, 0, 1, 1]])
    torch.testing.assert_close(cross_attention_reference(q, kv, packing_of(arguments))[0], expected)


@pytest.mark.parametrize("backend", [*CPU_BACKENDS, "reference"])
def test_it_is_self_attention_where_keys_are_the_queries_tokens(backend):
    """Also without any of the keys' arguments: they are those of the queries."""
    skip_unless_available(backend)
    qkv, angles, cu = torch.randn(40, 3, 2, 64), torch.randn(40, 16), starts([31, 9])
    ids = torch.randint(0, 2, (40,)).int()
    options = {"angles": angles, "segment_ids": ids, "backend": backend}
    expected = rotary_attention(qkv, cu, 31, **options)
    assert torch.equal(rotary_attention(qkv[:, 0], cu, 31, kv=qkv[:, 1:], **options), expected)


@pytest.mark.parametrize("backend", [*CPU_BACKENDS, "reference"])
@pytest.mark.parametrize("segments", [False, True])
def test_a_query_without_keys_gives_0(backend, segments):
    skip_unless_available(backend)
    q, kv, grad, arguments = cross_problem([4, 70, 5], [0, 90, 3], segments=segments)
    arguments["angles"], arguments["angles_k"] = None, None
    lonely = torch.arange(79) < 4
    if segments:
        arguments["segment_ids"][6] = 9  # no key has it
        arguments["segment_ids_k"][:] = 2
        lonely |= arguments["segment_ids"] != 2
    out, grad_q, _ = with_gradients(lambda q, kv: rotary_attention(q, kv=kv, **arguments, backend=backend), q, kv, grad)
    assert (out[lonely] == 0).all()
    assert (grad_q[lonely] == 0).all()
    assert (out[~lonely] != 0).all()


@every_backend
def test_what_is_not_finite_stays_in_its_sequence(backend):
    skip_unless_available(backend)
    q, kv, grad, arguments = cross_problem([7, 70, 9], [5, 80, 3])
    run = lambda q, kv: rotary_attention(q, kv=kv, **arguments, backend=backend)  # noqa: E731
    expected = with_gradients(run, q, kv, grad)
    spoiled = kv.clone()
    spoiled[9, 0, 1, 3] = float("nan")
    found = with_gradients(run, q, spoiled, grad)
    for before, after, own in zip(expected, found, (slice(7, 77), slice(7, 77), slice(5, 85)), strict=True):
        assert torch.equal(before[: own.start], after[: own.start])
        assert torch.equal(before[own.stop :], after[own.stop :])
        assert not after[own].isfinite().all()


@every_backend
@pytest.mark.parametrize("layout", STRIDED.values(), ids=STRIDED.keys())
@pytest.mark.parametrize("angles", [0, 16])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_strided_inputs(backend, layout, angles, kv_heads):
    skip_unless_available(backend)
    q, kv, grad, arguments = cross_problem([7, 9], [5, 8], heads=4, kv_heads=kv_heads, angles=angles)
    run = lambda q, kv: rotary_attention(q, kv=kv, **arguments, backend=backend)  # noqa: E731
    strided = [layout(x) for x in (q, kv, grad)]
    assert all(x.stride(-1) > 1 for x in strided)
    for plain, found in zip(with_gradients(run, q, kv, grad), with_gradients(run, *strided), strict=True):
        torch.testing.assert_close(plain, found)


ZERO_HEADS = """
import torch
from reserve_kernels import rotary_attention
starts = torch.tensor([0, 3], dtype=torch.int32)
for dtype in (torch.float16, torch.float32):
    for shapes in ([(3, 3, 0, 64)], [(3, 0, 64), (3, 2, 0, 64)]):
        leaves = [torch.zeros(shape, dtype=dtype, requires_grad=True) for shape in shapes]
        out = rotary_attention(leaves[0], starts, 3, kv=leaves[1] if len(leaves) > 1 else None, backend="sdpa")
        out.sum().backward()
        print(*out.shape, *(leaf.grad.shape == leaf.shape for leaf in leaves))
"""


def test_no_heads_are_no_error_of_the_processor():
    """In a process of its own: a division by zero would end this one."""
    done = subprocess.run([sys.executable, "-c", ZERO_HEADS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["3 0 64 True", "3 0 64 True True"] * 2), done.stderr


@pytest.mark.parametrize("backend", [*CPU_BACKENDS, "reference"])
def test_opcheck(backend):
    skip_unless_available(backend)
    q, kv, _, arguments = cross_problem([5, 0, 9], [3, 4, 8], heads=4, segments=True)
    operands = q.requires_grad_(), kv.requires_grad_(), *arguments.values(), "reserve", 0.125, backend
    torch.library.opcheck(torch.ops.reserve_kernels.rotary_cross_attention, operands)


ONE_QUERY = {
    "many keys": ({}, "sdpa"),
    "few keys": ({"lengths_k": [511] * 3}, "native"),
    "keys of different numbers": ({"lengths_k": [512, 512, 511]}, "native"),
    "two queries": ({"lengths": [2, 1, 1]}, "native"),
    "a sequence without a query": ({"lengths": [1, 0, 1]}, "native"),
    "bfloat16": ({"dtype": torch.bfloat16}, "native"),
    "shared heads": ({"kv_heads": 1}, "native"),
    "a position": ({"angles": 16}, "native"),
    "segments": ({"segments": True}, "native"),
}


@pytest.mark.parametrize(("changes", "expected"), ONE_QUERY.values(), ids=ONE_QUERY.keys())
def test_one_query_over_many_keys_goes_to_the_faster_kernel(monkeypatch, changes, expected):
    skip_unless_available("native")
    monkeypatch.setattr(native, "has_avx2", lambda: True)
    chosen = []
    monkeypatch.setattr(attention, "cross_attention", lambda *a: chosen.append(a[-1]) or cross_attention(*a))
    options = {"lengths": [1] * 3, "lengths_k": [512] * 3, "angles": 0} | changes
    q, kv, _, arguments = cross_problem(**options)
    rotary_attention(q, kv=kv, **arguments)
    rotary_attention(q, kv=kv.requires_grad_(), **arguments)
    assert chosen == [expected, "native"]


def test_compiles_as_one_graph_with_gradients():
    q, kv, grad, arguments = cross_problem([5, 9], [30, 2], heads=4)
    run = lambda q, kv: rotary_attention(q * 2, kv=kv, **arguments)  # noqa: E731
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    expected = with_gradients(run, q, kv, grad)
    for plain, found in zip(expected, with_gradients(compiled, q, kv, grad), strict=True):
        torch.testing.assert_close(plain, found)


def test_autocast_lowers_the_dtype():
    q, kv, _, arguments = cross_problem([5, 9], [30, 2])
    with torch.autocast("cpu", torch.bfloat16):
        out = rotary_attention(q, kv=kv.bfloat16(), **arguments)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, rotary_attention(q.bfloat16(), kv=kv.bfloat16(), **arguments))


def test_double_backward_is_refused():
    q, kv, _, arguments = cross_problem([5], [3])
    q.requires_grad_()
    (grad,) = torch.autograd.grad(rotary_attention(q, kv=kv, **arguments).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="rotary_attention has no double backward"):
        torch.autograd.grad(grad.sum(), q)


@pytest.mark.parametrize("backend", [*CPU_BACKENDS, "reference"])
def test_shapes_on_the_meta_device(backend):
    named = "reference" if backend == "native" else backend
    q, kv, grad, arguments = cross_problem([5, 9], [30, 2], heads=4)
    on_meta = {name: x.to("meta") if isinstance(x, torch.Tensor) else x for name, x in arguments.items()}
    run = lambda q, kv: rotary_attention(q, kv=kv, **on_meta, backend=named)  # noqa: E731
    found = with_gradients(run, *(x.to("meta") for x in (q, kv, grad)))
    assert [tuple(x.shape) for x in found] == [tuple(x.shape) for x in (q, q, kv)]


@pytest.mark.parametrize("backend", [*CPU_BACKENDS, "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_shapes_under_fake_tensor_mode(backend, dtype):
    skip_unless_available(backend, dtype)
    with FakeTensorMode():
        q, kv, grad, arguments = cross_problem([5, 9], [30, 2], dtype, heads=4, kv_heads=2, size=96, segments=True)
        run = lambda q, kv: rotary_attention(q, kv=kv, **arguments, backend=backend)  # noqa: E731
        found = with_gradients(run, q, kv, grad)
    assert [(tuple(x.shape), x.dtype) for x in found] == [(tuple(x.shape), dtype) for x in (q, q, kv)]


BAD = {
    "q shape": (
        {"qkv": torch.zeros(5, 3, 4, 64)},
        ValueError,
        r"qkv must be queries \[tokens, heads, 32, 64, 96 or 128",
    ),
    "kv type": ({"kv": 3}, TypeError, "kv must be a torch.Tensor; got int"),
    "kv shape": ({"kv": torch.zeros(7, 3, 2, 64)}, ValueError, r"kv must be \[tokens, 2, heads, 64\]"),
    "kv size": ({"kv": torch.zeros(7, 2, 2, 32)}, ValueError, r"kv must be \[tokens, 2, heads, 64\]"),
    "kv heads": (
        {"kv": torch.zeros(7, 2, 3, 64)},
        ValueError,
        "kv must have a number of heads that divides qkv's 4; got 3",
    ),
    "more kv heads": ({"kv": torch.zeros(7, 2, 8, 64)}, ValueError, "divides qkv's 4; got 8"),
    "kv dtype": ({"kv": torch.zeros(7, 2, 4, 64).double()}, TypeError, "kv must have qkv's dtype float32; got float64"),
    "max_seqlen_k": ({"max_seqlen_k": -1}, ValueError, "max_seqlen_k must be at least 0; got -1"),
    "max_seqlen_k missing": (
        {"max_seqlen_k": None},
        ValueError,
        "cu_seqlens_k and max_seqlen_k must be given together",
    ),
    "cu_seqlens_k dtype": ({"cu_seqlens_k": torch.tensor([0, 7])}, TypeError, "cu_seqlens_k must have dtype int32"),
    "other sequences": (
        {"cu_seqlens_k": starts([3, 4])},
        ValueError,
        "cu_seqlens_k must be of as many sequences .* 1; got 2",
    ),
    "cu_seqlens_k end": (
        {"cu_seqlens_k": starts([6])},
        ValueError,
        "cu_seqlens_k must go from 0 to 7, kv's tokens.*to 6",
    ),
    "too short": ({"max_seqlen_k": 6}, ValueError, "max_seqlen_k must be at least the longest of 1.* 7 tokens.*got 6"),
    "other lengths": (
        {"cu_seqlens_k": None, "max_seqlen_k": None},
        ValueError,
        "kv must have qkv's 5 tokens unless cu_seqlens_k .*; got 7",
    ),
    "angles_k missing": ({"angles_k": None}, ValueError, "angles needs angles_k where keys have a cu_seqlens_k"),
    "angles missing": ({"angles": None}, ValueError, "angles_k needs angles, that of the queries"),
    "angles_k tokens": ({"angles_k": torch.zeros(5, 16)}, ValueError, r"angles_k must be \[7, 1 to 32\].*kv has 7"),
    "angles_k columns": (
        {"angles_k": torch.zeros(7, 8)},
        ValueError,
        "angles_k must have 16 columns, as angles; got 8",
    ),
    "segment_ids_k missing": ({"segment_ids_k": None}, ValueError, "segment_ids needs segment_ids_k"),
    "segment_ids_k": ({"segment_ids_k": torch.zeros(5).int()}, ValueError, r"segment_ids_k must be \[7\] .kv has 7"),
    "backend": ({"backend": "triton"}, RuntimeError, "backend 'triton' cannot run"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_named(changes, error, message):
    q, kv, _, arguments = cross_problem([5], [7], heads=4, kv_heads=4, segments=True)
    with pytest.raises(error, match=message):
        rotary_attention(**{"qkv": q, "kv": kv} | arguments | changes)
