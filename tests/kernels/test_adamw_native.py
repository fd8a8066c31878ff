"""The native step of BF16AdamW: each instruction set, and the CUDA kernel's code executed on the CPU."""

from __future__ import annotations

import ctypes

import pytest
import torch

from reserve_kernels import native
from reserve_kernels.adamw.native import adamw_native_
from reserve_kernels.adamw.reference import (
    LARGEST_GRADIENT,
    adamw_reference_,
    decode_second_moment,
    encode_second_moment,
)
from reserve_kernels.adamw.stochastic import tensor_key
from reserve_kernels.native import AdamwRandom, AdamwSettings, AdamwTensor
from tests.kernels.adamw_cases import CORRECTED, PLAIN, SIZES, Tensors, check_step, draw

pytestmark = pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))
IMPLEMENTATIONS = ["baseline", "avx2", "avx512", "emulated"]


def runner(name: str, threads: int = 1):
    library = native.library()
    if name == "emulated":
        execute = library.adamw_emulated
    elif library.has_isa(name):

        def execute(settings, tensors, random):
            library.adamw_cpu(settings, tensors, random, threads, name)
    else:
        pytest.skip(f"this processor has no {name}")

    def run(tensors: Tensors, settings, keys=(), firsts=()):
        adamw_native_(*tensors.lists(), settings, keys, firsts, execute)

    return run


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("moments", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("settings", [PLAIN, CORRECTED], ids=["plain", "corrected"])
@pytest.mark.parametrize("with_start", [False, True])
def test_step_is_as_good_as_the_reference(name, moments, settings, with_start):
    check_step(runner(name), settings, draw(moments=moments, with_start=with_start))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_stored_second_moment_is_read_to_float32s_precision(name):
    """beta2 of 1 keeps v, and an m of 1 with a rate of 1 then moves a weight of 0 to -1 / sqrt(v)."""
    patterns = torch.arange(0x10000, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    cube = patterns.double().abs() * torch.where(patterns < 0, 1 + 2.0**-9, 1.0)
    usable = (cube > 1.2e-38) & cube.isfinite()
    stored, cube = patterns[usable], cube[usable]
    size = len(stored)
    tensors = Tensors([torch.zeros(size)], [torch.zeros(size)], [torch.ones(size).bfloat16()], [stored.clone()], [])
    runner(name)(tensors, PLAIN._replace(learning_rate=1.0, beta1=1.0, beta2=1.0, eps=1e-38, weight_decay=0.0))
    # Half of the unit in the last place that v may be off, and the rounding of root and quotient.
    torch.testing.assert_close(-tensors.weights[0].double(), cube.pow(-1 / 6), rtol=1.3e-7, atol=0)
    assert torch.equal(tensors.m[0], torch.ones(size).bfloat16())


@pytest.mark.parametrize("name", [*IMPLEMENTATIONS, "reference"])
def test_stored_subnormals_are_read_as_zero(name):
    """They are never stored, but a state from elsewhere may have them. Then m / eps moves the weight."""
    patterns = torch.arange(0x80)
    stored = torch.cat((patterns, patterns - 0x8000)).to(torch.int16).view(torch.bfloat16)
    # Of which the sign's bit lifts the largest to a normal number.
    stored = stored[stored.double().abs() * (1 + 2.0**-9) < torch.finfo(torch.float32).tiny]
    size = len(stored)
    tensors = Tensors([torch.zeros(size)], [torch.zeros(size)], [torch.ones(size).bfloat16()], [stored.clone()], [])
    settings = PLAIN._replace(learning_rate=1.0, beta1=1.0, beta2=1.0, eps=2.0**-20, weight_decay=0.0)
    if name == "reference":
        adamw_reference_(*tensors.lists(), settings)
    else:
        runner(name)(tensors, settings)
    assert torch.equal(tensors.weights[0], torch.full((size,), -(2.0**20)))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_second_moments_are_stored_as_the_reference_stores_them(name):
    """beta2 of 0 takes v from the gradient alone; squares and cubes then round alike."""
    gradient = torch.cat((torch.logspace(-7, 6, 5000), torch.zeros(3)))
    size = len(gradient)
    tensors = Tensors(
        [torch.zeros(size)],
        [gradient],
        [torch.zeros(size).bfloat16()],
        [torch.full((size,), torch.nan).bfloat16().zero_()],
        [],
    )
    runner(name)(tensors, PLAIN._replace(beta2=0.0))
    expected = encode_second_moment(gradient.square())
    assert torch.equal(tensors.v[0].view(torch.int16), expected.view(torch.int16))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_first_moments_are_rounded_to_the_nearest_and_ties_to_even(name):
    """beta1 of 0 takes m from the gradient alone: all bfloat16 numbers up to 2^21, and around the ties between them."""
    below = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=torch.int32)
    gradient = ((torch.arange(0x10000, dtype=torch.int32) << 16)[:, None] | below).view(torch.float32).flatten()
    gradient = gradient[gradient.abs() <= LARGEST_GRADIENT[torch.bfloat16]] + 0.0
    size = len(gradient)
    m = torch.full((size,), 3.0).bfloat16()
    tensors = Tensors([torch.zeros(size)], [gradient], [m], [torch.zeros(size).bfloat16()], [])
    runner(name)(tensors, PLAIN._replace(beta1=0.0))
    assert torch.equal(m.view(torch.int16), gradient.bfloat16().view(torch.int16))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_more_tensors_than_a_launch_holds(name):
    sizes = [1 + i * 37 % 5000 for i in range(200)]
    check_step(runner(name), PLAIN, draw(sizes))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize(("full", "empty"), [(0, 1), (0, 80), (71, 0), (72, 0), (72, 1), (73, 0), (73, 80), (144, 1)])
def test_launches_at_their_edges(name, full, empty):
    """A launch takes 72 tensors. Empty ones, alone or at the end, must not launch a grid without blocks."""
    check_step(runner(name), PLAIN, draw([5] * full + [0] * empty))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("part", [None, *range(5)])
@pytest.mark.parametrize("moments", [torch.bfloat16, torch.float32], ids=str)
def test_unaligned_tensors_and_nothing_beside_them(name, part, moments):
    """One list or none starts in the middle of an aligned quadruple; nothing around the tensors is written."""
    sizes = [5, 2049, 300, 2047]
    before = draw(sizes, moments, with_start=True)
    around: list[torch.Tensor] = []

    def run(tensors: Tensors, settings):
        lists = tensors.lists()
        for j, tensors_of in enumerate(lists):
            first = 1 if j == part else 4
            for i, tensor in enumerate(tensors_of):
                buffer = torch.full((len(tensor) + 13,), 77.0).to(tensor.dtype)
                before_it, tensors_of[i], behind = buffer.split([first, len(tensor), 13 - first])
                tensors_of[i].copy_(tensor)
                around.extend((before_it, behind))
        runner(name)(Tensors(*lists), settings)

    check_step(run, PLAIN, before)
    assert all(bool((beside == 77.0).all()) for beside in around)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_bits_do_not_depend_on_threads(threads):
    one, many = draw([*SIZES, 300_000], seed=5), draw([*SIZES, 300_000], seed=5)
    runner("baseline")(one, PLAIN)
    runner("baseline", threads)(many, PLAIN)
    for a, b in zip(one.lists()[0] + one.m + one.v, many.lists()[0] + many.m + many.v, strict=True):
        assert torch.equal(a, b)


def test_gradients_with_strides_are_taken():
    tensors, other = draw([60]), draw([60])
    strided = torch.stack((other.gradients[0], torch.zeros(60)), 1)[:, 0]
    assert not strided.is_contiguous()
    other.gradients[0] = strided
    runner("baseline")(tensors, PLAIN)
    runner("baseline")(other, PLAIN)
    assert torch.equal(tensors.weights[0], other.weights[0])


@pytest.mark.parametrize("function", ["adamw_cpu", "adamw_emulated"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda settings, tensors: setattr(settings, "moments_dtype", 2),
        lambda settings, tensors: setattr(tensors[0], "count", -1),
        *(
            lambda settings, tensors, f=field: setattr(tensors[0], f, None)
            for field in ("weight", "gradient", "m", "v")
        ),
    ],
    ids=["dtype", "count", "weight", "gradient", "m", "v"],
)
def test_tensors_that_c_cannot_use_are_rejected(function, spoil):
    kept = [torch.zeros(4) for _ in range(4)]
    settings = AdamwSettings(moments_dtype=native.FLOAT32)
    tensors = (AdamwTensor * 1)(AdamwTensor(*(x.data_ptr() for x in kept), None, 4))
    run = getattr(native.library(), function)
    arguments = (settings, tensors, None, *([1] if function == "adamw_cpu" else []))
    run(*arguments)
    spoil(settings, tensors)
    with pytest.raises(ValueError, match=f"{function}: invalid argument"):
        run(*arguments)


def test_fewer_threads_than_one_are_refused():
    with pytest.raises(ValueError, match="adamw_cpu: invalid argument"):
        native.library().adamw_cpu(AdamwSettings(moments_dtype=native.FLOAT32), (AdamwTensor * 0)(), None, 0)


def test_a_tensor_of_more_blocks_than_a_grid_has_is_refused():
    one = ctypes.c_float()
    address = ctypes.addressof(one)
    tensors = (AdamwTensor * 1)(AdamwTensor(address, address, address, address, None, 2**43))
    with pytest.raises(RuntimeError, match="adamw_emulated: not supported"):
        native.library().adamw_emulated(AdamwSettings(moments_dtype=native.FLOAT32), tensors, None)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("moments", [torch.bfloat16, torch.float32], ids=str)
def test_finite_gradients_count_as_the_largest_at_most(name, moments):
    """Both signs, at the clamp, just beyond it and at float32's limit, from moments of earlier gradients."""
    largest = torch.tensor(LARGEST_GRADIENT[moments])
    beyond = torch.stack((largest, largest.nextafter(torch.tensor(torch.inf)), torch.tensor(torch.finfo().max)))
    beyond = torch.cat((beyond, -beyond)).repeat(5)
    ours, expected = ([torch.ones(30), torch.zeros(30).to(moments), torch.zeros(30).to(moments)] for _ in range(2))
    for _ in range(3):
        for (w, m, v), gradient in ((ours, beyond), (expected, beyond.clamp(-largest, largest))):
            runner(name)(Tensors([w], [gradient], [m], [v], []), CORRECTED)
    for a, b in zip(ours, expected, strict=True):
        assert bool(a.isfinite().all())
        assert torch.equal(a, b)


def keys_of(tensors: Tensors) -> list[int]:
    return [tensor_key(0, 1, place) for place in range(len(tensors.weights))]


def order(stored: torch.Tensor) -> torch.Tensor:
    """The place of second moments among all that can be stored."""
    pattern = stored.view(torch.int16).int()
    return (pattern & 0x7FFF) * 2 + (pattern < 0).int()


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("first", [0, 3, 2**32 - 20_001, 2**63 - 50_000], ids=str)
def test_stochastic_rounding_is_that_of_the_reference_to_the_bit(name, first):
    """Betas of 0 take the moments from the gradient alone, so that all arithmetic before the rounding is the same."""
    gradient = torch.cat((torch.logspace(-20, 6.5, 20_000), -torch.logspace(-20, 6.5, 20_000), torch.zeros(3)))
    settings = PLAIN._replace(beta1=0.0, beta2=0.0)
    ours, expected = (
        Tensors(
            [torch.zeros(len(gradient))],
            [gradient],
            [torch.ones(len(gradient)).bfloat16()],
            [torch.ones(len(gradient)).bfloat16()],
            [],
        )
        for _ in range(2)
    )
    runner(name)(ours, settings, [-(2**63) + 5], [first])
    adamw_reference_(*expected.lists(), settings, [-(2**63) + 5], [first])
    assert torch.equal(ours.m[0].view(torch.int16), expected.m[0].view(torch.int16))
    assert torch.equal(ours.v[0].view(torch.int16), expected.v[0].view(torch.int16))
    assert len(ours.m[0].unique()) > 20_000


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("with_start", [False, True])
def test_a_stochastic_step_is_the_reference_up_to_the_last_bit(name, with_start):
    """Sums are fused on some processors. A moment that differs in its last bit rarely rounds to the other neighbour."""
    ours, expected, nearest = (draw(with_start=with_start) for _ in range(3))
    firsts = [0] * len(SIZES)
    runner(name)(ours, CORRECTED, keys_of(ours), firsts)
    adamw_reference_(*expected.lists(), CORRECTED, keys_of(expected), firsts)
    adamw_reference_(*nearest.lists(), CORRECTED)
    for a, b, c in zip(ours.weights, expected.weights, nearest.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert torch.equal(b, c)  # the step uses the moments before they are rounded
    for a, b in ((ours.v, expected.v), (ours.m, expected.m)):
        apart = (order(torch.cat(a)) - order(torch.cat(b))).abs()
        assert int(apart.max()) <= 2  # steps of m count twice
        assert float((apart > 0).double().mean()) < 5e-4
    assert not torch.equal(torch.cat(ours.v), torch.cat(nearest.v))


@pytest.mark.parametrize("name", [*IMPLEMENTATIONS, "reference"])
def test_every_stored_pattern_is_read_with_stochastic_rounding(name):
    """As above, with second moments below 2^-42 too: patterns of subnormal numbers."""
    patterns = torch.arange(0x10000, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    patterns = patterns[patterns.isfinite()]
    size = len(patterns)
    tensors = Tensors([torch.zeros(size)], [torch.zeros(size)], [torch.ones(size).bfloat16()], [patterns.clone()], [])
    settings = PLAIN._replace(learning_rate=1.0, beta1=1.0, beta2=1.0, eps=2.0**-50, weight_decay=0.0)
    if name == "reference":
        adamw_reference_(*tensors.lists(), settings, [1], [0])
    else:
        runner(name)(tensors, settings, [1], [0])
    expected = 1 / (decode_second_moment(patterns).double().sqrt() + 2.0**-50)
    torch.testing.assert_close(-tensors.weights[0].double(), expected, rtol=3e-7, atol=0)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize(("full", "empty"), [(0, 1), (58, 0), (59, 0), (59, 1), (60, 80), (118, 1), (200, 0)])
def test_stochastic_launches_at_their_edges(name, full, empty):
    """A launch takes 59 tensors with their keys."""
    sizes = [1 + i * 37 % 500 for i in range(full)] + [0] * empty
    ours, expected = draw(sizes), draw(sizes)
    firsts = [2**32 - i for i in range(full + empty)]
    runner(name)(ours, PLAIN._replace(beta1=0.0, beta2=0.0), keys_of(ours), firsts)
    adamw_reference_(*expected.lists(), PLAIN._replace(beta1=0.0, beta2=0.0), keys_of(expected), firsts)
    for a, b in zip(ours.m + ours.v, expected.m + expected.v, strict=True):
        assert torch.equal(a.view(torch.int16), b.view(torch.int16))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("cut", [1, 2, 2048, 16_385])
def test_shards_are_rounded_as_the_whole(name, cut):
    """Unaligned ones too: each element has the bits of its index in the whole tensor."""
    whole, other = draw([40_000], with_start=True), draw([40_000], with_start=True)
    shards = Tensors(*(list(part[0].split([cut, 40_000 - cut])) for part in other.lists()))
    runner(name)(whole, PLAIN, [7], [100])
    runner(name)(shards, PLAIN, [7, 7], [100, 100 + cut])
    for a, b in zip((whole.weights, whole.m, whole.v), (shards.weights, shards.m, shards.v), strict=True):
        assert torch.equal(a[0], torch.cat(b))


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_stochastic_bits_do_not_depend_on_threads(threads):
    one, many = draw([*SIZES, 300_000], seed=5), draw([*SIZES, 300_000], seed=5)
    firsts = [2**32 - 150_000] * len(one.weights)
    runner("baseline")(one, PLAIN, keys_of(one), firsts)
    runner("baseline", threads)(many, PLAIN, keys_of(one), firsts)
    for a, b in zip(one.weights + one.m + one.v, many.weights + many.m + many.v, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("function", ["adamw_cpu", "adamw_emulated"])
def test_float32_moments_with_random_bits_are_rejected(function):
    kept = [torch.zeros(4) for _ in range(4)]
    tensors = (AdamwTensor * 1)(AdamwTensor(*(x.data_ptr() for x in kept), None, 4))
    arguments = (AdamwSettings(moments_dtype=native.FLOAT32), tensors, (AdamwRandom * 1)())
    with pytest.raises(ValueError, match=f"{function}: invalid argument"):
        getattr(native.library(), function)(*arguments, *([1] if function == "adamw_cpu" else []))
