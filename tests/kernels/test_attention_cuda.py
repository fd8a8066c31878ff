"""rotary_attention on a GPU: the compiled Triton kernels, and the other libraries behind the same function."""

from __future__ import annotations

import json

import pytest
import torch

from reserve_kernels import rotary_attention
from reserve_kernels.attention import tiles, tune
from reserve_kernels.attention.availability import BACKENDS
from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.placing import place
from reserve_kernels.attention.reference import attention_reference
from tests.kernels.attention_plain import plain_attention
from tests.kernels.numerics import assert_as_good_as_reference

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.fixture(autouse=True)
def _nothing_tuned(tmp_path, monkeypatch):
    """Tests use the library's choices, whatever was tuned on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiles.tuned.cache_clear()
    yield
    tiles.tuned.cache_clear()


# Every length class, with empty sequences, lengths around the edges of tiles, and every row of another length.
LENGTHS = {
    "span": [17, 4, 16, 9, 1, 2] * 20,
    "audio": [31] * 100,
    "short": [64, 33, 0, 50, 1, 63],
    "vision": [241, 0, 241, 65, 1, 128, 129],
    "joint": [640, 303, 1, 512, 417, 0, 639],
    "large grid": [1312, 1311],
    "nothing": [],
    "only empty": [0, 0],
}
DTYPES = [torch.bfloat16, torch.float16]


def make_inputs(lengths, dtype, heads=3, segments=False):
    generator = torch.Generator("cuda").manual_seed(len(lengths))
    tokens = sum(lengths)
    qkv = torch.randn(tokens, 3, heads, 64, generator=generator, device="cuda", dtype=torch.float64).to(dtype)
    grad = torch.randn(tokens, heads, 64, generator=generator, device="cuda", dtype=torch.float64).to(dtype)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int().cuda()
    angles = torch.randn(tokens, 16, generator=generator, device="cuda") * 3
    ids = torch.randint(0, 3, (tokens,), generator=generator, device="cuda").int() if segments else None
    return qkv, grad, cu_seqlens, max([0, *lengths]), angles, ids


def run(function, qkv, grad):
    inputs = qkv.clone().requires_grad_()
    out = function(inputs)
    (gradient,) = torch.autograd.grad(out, inputs, grad.to(out.dtype))
    return out.detach(), gradient


def check(lengths, dtype, backend="triton", *, segments=False, rotary="reserve", with_angles=True, scale=0.125):
    qkv, grad, cu, longest, angles, ids = make_inputs(lengths, dtype, segments=segments)
    angles = angles if with_angles else None
    extras = {"angles": angles, "segment_ids": ids, "rotary": rotary, "scale": scale}
    results = run(lambda x: rotary_attention(x, cu, longest, backend=backend, **extras), qkv, grad)

    packing = Packing(cu, longest, angles, ids, rotary, scale)
    truths = run(lambda x: attention_reference(x, packing)[0], qkv.double(), grad)
    plain = run(lambda x: plain_attention(x, packing), qkv, grad)
    for result, truth, in_dtype in zip(results, truths, plain, strict=True):
        assert_as_good_as_reference(result, truth, in_dtype)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forward_and_gradient_match_float64(lengths, dtype):
    check(lengths, dtype)


@pytest.mark.parametrize("shape", ["audio", "short", "vision", "joint"])
@pytest.mark.parametrize("rotary", ["reserve", "standard"])
@pytest.mark.parametrize("segments", [False, True])
def test_every_option_matches_float64(shape, rotary, segments):
    check(LENGTHS[shape], torch.bfloat16, rotary=rotary, segments=segments, scale=0.2)


@pytest.mark.parametrize("shape", ["audio", "joint"])
def test_without_position(shape):
    check(LENGTHS[shape], torch.bfloat16, with_angles=False)


def every_candidate():
    chips = tiles.family(90 if not torch.cuda.is_available() else 10 * torch.cuda.get_device_capability()[0])
    for name, kernels in tiles.CHOSEN[chips].items():
        for kernel in kernels:
            for tile in tiles.CANDIDATES[chips][kernel]:
                if tiles.holds(kernel, tile, name):
                    yield pytest.param(chips, name, kernel, tile, id=f"{name}-{kernel}-{'x'.join(map(str, tile))}")


@pytest.mark.parametrize(("chips", "name", "kernel", "tile"), list(every_candidate()))
def test_every_tile_that_can_be_picked(chips, name, kernel, tile, monkeypatch):
    monkeypatch.setitem(tiles.CHOSEN[chips], name, tiles.CHOSEN[chips][name] | {kernel: tile})
    check({"tiny": [31, 17, 1], "short": [64, 33, 7], "medium": [241, 65], "long": [640, 303]}[name], torch.bfloat16)


@pytest.mark.parametrize("backend", [b.name for b in BACKENDS if b.name != "triton"])
@pytest.mark.parametrize("shape", ["audio", "joint"])
def test_other_backends_match_float64(backend, shape):
    found = BACKENDS[backend]
    reason = found.unavailable(torch.device("cuda"), torch.bfloat16)
    if reason is not None:
        pytest.skip(reason)
    check(LENGTHS[shape], torch.bfloat16, backend)


@pytest.mark.parametrize("backend", ["triton", "sdpa"])
@pytest.mark.parametrize("rotary", ["reserve", "standard"])
def test_angles_get_no_gradient(backend, rotary):
    qkv, grad, cu, longest, angles, _ = make_inputs([31, 17], torch.bfloat16)
    angles.requires_grad_()
    out = rotary_attention(qkv.requires_grad_(), cu, longest, angles=angles, rotary=rotary, backend=backend)
    assert torch.autograd.grad(out, [qkv, angles], grad, allow_unused=True)[1] is None


def test_auto_picks_triton_in_half_precision_and_sdpa_in_full():
    qkv, _, cu, longest, angles, _ = make_inputs([31, 17], torch.bfloat16)
    assert torch.equal(
        rotary_attention(qkv, cu, longest, angles=angles),
        rotary_attention(qkv, cu, longest, angles=angles, backend="triton"),
    )
    with pytest.raises(RuntimeError, match="float16 and bfloat16 only"):
        rotary_attention(qkv.float(), cu, longest, angles=angles, backend="triton")
    rotary_attention(qkv.float(), cu, longest, angles=angles)


@pytest.mark.parametrize("shape", ["audio", "joint"])
def test_two_runs_give_the_same_bits(shape):
    qkv, grad, cu, longest, angles, _ = make_inputs(LENGTHS[shape], torch.bfloat16)
    runs = [run(lambda x: rotary_attention(x, cu, longest, angles=angles), qkv, grad) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("shape", ["audio", "joint"])
def test_the_host_never_waits(shape):
    qkv, grad, cu, longest, angles, _ = make_inputs(LENGTHS[shape], torch.bfloat16)
    function = lambda x: rotary_attention(x, cu, longest, angles=angles)  # noqa: E731
    run(function, qkv, grad)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(function, qkv, grad)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("shape", ["audio", "joint"])
def test_a_cuda_graph_follows_new_values_and_new_lengths(shape):
    lengths = LENGTHS[shape]
    qkv, grad, cu, longest, angles, _ = make_inputs(lengths, torch.bfloat16)
    x = qkv.clone().requires_grad_()

    def step():
        out = rotary_attention(x, cu, longest, angles=angles)
        return out, torch.autograd.grad(out, x, grad)[0]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, gradient = step()
    # As many tokens in sequences of other lengths: the same, backwards.
    cu.copy_(torch.tensor([0, *reversed(lengths)]).cumsum(0).int())
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    expected_out, expected_gradient = run(lambda y: rotary_attention(y, cu, longest, angles=angles), x.detach(), grad)
    assert torch.equal(out, expected_out)
    assert torch.equal(gradient, expected_gradient)


def test_the_tuner_runs_and_its_choices_are_read(monkeypatch):
    lengths = {"tiny": [31] * 8, "short": [64] * 8, "medium": [241] * 8, "long": [640] * 8}
    monkeypatch.setattr(tune, "BATCHES", lengths)
    tune.main([])
    (file,) = tiles.tuned_file(tiles.Chip(0, "")).parent.iterdir()
    assert json.loads(file.read_text()).keys() == lengths.keys()
    check(LENGTHS["joint"], torch.bfloat16)
    check(LENGTHS["audio"], torch.bfloat16)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_numbers_stay_in_their_sequence(bad, part):
    qkv, grad, cu, longest, angles, _ = make_inputs([7, 9, 31], torch.bfloat16)
    changed, changed_grad = qkv.clone(), grad.clone()
    if part == 3:
        changed_grad[11, 1] = bad
    else:
        changed[11, part, 1] = bad
    function = lambda x: rotary_attention(x, cu, longest, angles=angles)  # noqa: E731
    expected, results = run(function, qkv, grad), run(function, changed, changed_grad)
    for clean, spoiled in zip(expected, results, strict=True):
        assert torch.equal(clean[:7], spoiled[:7])
        assert torch.equal(clean[16:], spoiled[16:])
    assert not results[1][7:16].isfinite().all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one():
    qkv, grad, cu, longest, angles, _ = make_inputs([31, 17], torch.bfloat16)
    expected = run(lambda x: rotary_attention(x, cu, longest, angles=angles), qkv, grad)
    moved = [x.to("cuda:1") for x in (qkv, grad, cu, angles)]
    results = run(lambda x: rotary_attention(x, moved[2], longest, angles=moved[3]), *moved[:2])
    assert all(torch.equal(a, b.to(a.device)) for a, b in zip(expected, results, strict=True))


def place_and_back(qkv, grad, angles, rotary="reserve"):
    """Placed queries and keys, values, and the gradient of qkv if each of them has the gradient `grad`."""
    x = qkv.clone().requires_grad_()
    parts = place(x, angles, rotary)
    return [*(part.detach() for part in parts), torch.autograd.grad(parts, x, [grad] * 3)[0]]


@pytest.mark.parametrize("rotary", ["reserve", "standard"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_placing_for_other_libraries_matches_float64(rotary, dtype):
    qkv, grad, *_, angles, _ = make_inputs(LENGTHS["vision"], dtype)
    results = place_and_back(qkv, grad, angles, rotary)
    truths = place_and_back(qkv.double(), grad.double(), angles, rotary)
    # As good as one rounding of the exact result, by the project's rule.
    for result, truth in zip(results, truths, strict=True):
        assert_as_good_as_reference(result, truth, truth.to(dtype))


def test_placing_never_makes_the_host_wait():
    qkv, grad, *_, angles, _ = make_inputs(LENGTHS["joint"], torch.bfloat16)
    place_and_back(qkv, grad, angles)
    torch.cuda.set_sync_debug_mode("error")
    try:
        place_and_back(qkv, grad, angles)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_cuda_graph_of_placing_follows_new_values():
    qkv, grad, *_, angles, _ = make_inputs(LENGTHS["joint"], torch.bfloat16)
    x = qkv.clone().requires_grad_()

    def step():
        parts = place(x, angles, "reserve")
        return [*parts, torch.autograd.grad(parts, x, [grad] * 3)[0]]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
        angles.copy_(torch.randn_like(angles))
    graph.replay()
    expected = place_and_back(x.detach(), grad, angles)
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


@pytest.mark.parametrize("backend", ["varlen", "flash_attn", "flash_attn_3", "xformers"])
def test_other_libraries_compile_as_one_graph_with_gradient(backend):
    reason = BACKENDS[backend].unavailable(torch.device("cuda"), torch.bfloat16)
    if reason is not None:
        pytest.skip(reason)
    qkv, grad, cu, longest, angles, _ = make_inputs([31, 17, 5], torch.bfloat16)
    function = lambda x: rotary_attention(x, cu, longest, angles=angles, backend=backend)  # noqa: E731
    compiled, eager = (run(f, qkv, grad) for f in (torch.compile(function, fullgraph=True), function))
    for result, expected in zip(compiled, eager, strict=True):
        torch.testing.assert_close(result, expected)


def test_opcheck():
    qkv, _, cu, longest, angles, ids = make_inputs([5, 0, 9], torch.bfloat16, segments=True)
    torch.library.opcheck(
        torch.ops.reserve_kernels.rotary_attention,
        (qkv.requires_grad_(), cu, longest, angles, ids, "reserve", 0.125, "triton"),
    )


def test_compiles_as_one_graph_with_gradient():
    qkv, grad, cu, longest, angles, _ = make_inputs([31, 17, 5], torch.bfloat16)
    function = lambda x: rotary_attention(x, cu, longest, angles=angles)  # noqa: E731
    compiled, eager = (run(f, qkv, grad) for f in (torch.compile(function, fullgraph=True), function))
    assert all(torch.equal(a, b) for a, b in zip(compiled, eager, strict=True))


def test_autocast_picks_triton():
    qkv, _, cu, longest, angles, _ = make_inputs([31, 17], torch.float32)
    with torch.autocast("cuda", torch.bfloat16):
        out = rotary_attention(qkv, cu, longest, angles=angles)
    assert torch.equal(out, rotary_attention(qkv.bfloat16(), cu, longest, angles=angles, backend="triton"))


def test_more_than_two_to_the_31_numbers():
    """Offsets beyond 32 bits: the last sequence of a large batch equals a batch of that sequence alone."""
    tokens, heads = 250_000, 48
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of free memory")
    qkv = torch.randn(tokens, 3, heads, 64, device="cuda", dtype=torch.bfloat16)
    cu = torch.arange(0, tokens + 1, 500, device="cuda", dtype=torch.int32)
    out = rotary_attention(qkv, cu, 500)
    alone = rotary_attention(qkv[-500:].clone(), cu[:2], 500)
    assert torch.equal(out[-500:], alone)
