"""Stochastic rounding of AdamW's moments: its random bits, and that every rounding keeps the mean."""

from __future__ import annotations

import pytest
import torch

from reserve_kernels.adamw.reference import PRECISION_BIT, decode_second_moment, encode_second_moment
from reserve_kernels.adamw.stochastic import (
    LEAST_TINY,
    TINY_BELOW,
    random_bits,
    round_first_moment,
    round_second_moment,
    tensor_key,
)

ALL = torch.arange(1 << 16)
"""All random numbers of 16 bits."""
MANY = torch.empty(1 << 18)


def patterns() -> torch.Tensor:
    """Every finite pattern that a second moment can be stored as, from the smallest to the largest."""
    order = torch.arange(2 * 0x7F80)  # twice the magnitude, and the sign's raise
    return (order // 2 + torch.where(order % 2 == 1, -0x8000, 0)).to(torch.int16).view(torch.bfloat16)


def exact(stored: torch.Tensor) -> torch.Tensor:
    """Stored second moments in float64: the roots of normal cubes are not rounded to float32."""
    cube = stored.double().abs() * torch.where(stored < 0, PRECISION_BIT, 1.0)
    normal = stored.double().abs() >= 2.0**-126
    return torch.where(normal, cube.pow(1 / 3), decode_second_moment(stored).double())


def test_random_bits_do_not_change() -> None:
    """They are part of what a resumed run depends on."""
    assert tensor_key(1, 2, 3) == 7702586659592502839
    bits = random_bits(tensor_key(1, 2, 3), 2**32 - 2, torch.empty(2, 2))
    assert bits.tolist() == [
        [831409740, 3912174142],
        [1106250381, 2182440845],
    ]


@pytest.mark.parametrize("first", [0, 1, 2**32 - 5, 2**63 - 10])
def test_a_part_has_the_bits_of_the_whole(first: int) -> None:
    whole = random_bits(99, first, torch.empty(10))
    assert torch.equal(random_bits(99, first + 4, torch.empty(3)), whole[4:7])
    assert torch.equal(random_bits(99, first, torch.empty(2, 5)), whole.view(2, 5))


def signs(bits: torch.Tensor) -> torch.Tensor:
    """±1 for each of the 32 bits: [elements, 32]."""
    return (bits[:, None] >> torch.arange(32) & 1) * 2.0 - 1


def deviations(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The correlation of each bit of `a` with each of `b`, in standard deviations of independent bits: [32, 32]."""
    return signs(a).T @ signs(b) / len(a) ** 0.5


def draw(*, first: int = 0, seed: int = 0, step: int = 1, place: int = 0) -> torch.Tensor:
    return random_bits(tensor_key(seed, step, place), first, MANY)


@pytest.mark.parametrize(
    "other",
    [
        *({"first": i} for i in (1, 2, 3, 4, 16, 256, 2**32, 2**33, 2**40)),
        {"step": 2},
        {"step": 2**40},
        {"place": 1},
        {"place": 1, "step": 2},
        {"seed": 1},
        {"seed": 2**64 - 1},
    ],
    ids=str,
)
def test_bits_of_neighbours_steps_parameters_and_seeds_are_independent(other: dict[str, int]) -> None:
    assert float(deviations(draw(), draw(**other)).abs().max()) < 5.5


def test_bits_of_the_two_moments_are_independent() -> None:
    bits = draw()
    among = deviations(bits, bits).fill_diagonal_(0)
    assert float(among.abs().max()) < 5.5
    assert float(signs(bits).mean(0).abs().max()) * len(bits) ** 0.5 < 5.5
    # All pairs of the 8 upper bits of either, not only linear dependence.
    pairs = torch.bincount((bits >> 24 << 8) | (bits >> 8 & 0xFF), minlength=1 << 16)
    expected = len(bits) / (1 << 16)
    deviation = float(((pairs - expected) ** 2 / expected).sum() - (1 << 16)) / (2 << 16) ** 0.5
    assert abs(deviation) < 5.5


def test_an_element_has_independent_bits_over_its_steps() -> None:
    steps = torch.stack([random_bits(tensor_key(0, step, 0), 0, torch.empty(8)) for step in range(1, 8001)])
    centred = (steps & 0xFFFF) / 65536 - 0.5
    for lag in (1, 2, 7):
        correlation = 12 * (centred[lag:].T @ centred[:-lag]) / len(steps) ** 0.5
        assert float(correlation.abs().max()) < 5.5
    assert float((centred.mean(0) * (12 * len(steps)) ** 0.5).abs().max()) < 5.5


@pytest.mark.parametrize("m", [1.0 + 2**-9, -3.14159, 1e-38, -1e-40, 2.0**21 - 0.125, 0.99999994, 7e-45])
def test_first_moments_keep_their_mean_exactly(m: float) -> None:
    value = torch.tensor(m)
    rounded = round_first_moment(value.expand(len(ALL)), ALL).double()
    assert float(rounded.mean()) == float(value)
    assert len(rounded.unique()) == 2


def test_first_moments_that_bfloat16_holds_stay() -> None:
    every = torch.arange(-0x8000, 0x8000, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    every = every[every.isfinite()]
    rounded = round_first_moment(every.float(), torch.full((len(every),), 0xFFFF))
    assert torch.equal(rounded.view(torch.int16), every.view(torch.int16))
    assert bool(round_first_moment(torch.tensor([torch.nan]), ALL[-1:]).isnan())


def test_stored_second_moments_are_read_in_their_order() -> None:
    decoded = decode_second_moment(patterns())
    assert decoded[:2].tolist() == [0.0, 0.0]
    assert bool((decoded[2:] > decoded[1:-1]).all())
    assert float(decoded[2]) == LEAST_TINY
    assert float(decoded[256]) == TINY_BELOW


@pytest.mark.parametrize("mantissa", [0, 1, 53, 90, 127])
@pytest.mark.parametrize("exponent", [-40, -1, 0, 1, 40])
def test_second_moments_keep_their_mean(mantissa: int, exponent: int) -> None:
    """To the 6e-8 that the docstring states: at places all over the two gaps from a bfloat16 cube to the next."""
    below = torch.tensor(2.0 ** (3 * exponent) * (1 + mantissa / 128), dtype=torch.float64)
    places = torch.cat((torch.linspace(0.002, 0.998, 23, dtype=torch.float64), torch.tensor([1e-4, 0.2501, 0.4999])))
    values = (below * (1 + places * 2.0**-7 / (1 + mantissa / 128))).pow(1 / 3).float()
    for v in values:
        rounded = round_second_moment(v.expand(len(ALL)), ALL)
        stored, counts = exact(rounded).unique(return_counts=True)
        assert len(stored) == 2
        assert stored[0] <= float(v) * (1 + 1e-7)
        assert stored[1] >= float(v) * (1 - 1e-7)
        assert stored[1] / stored[0] - 1 < 2.0e-3
        # The cube is rounded to float32: a third of half a unit in its last place.
        assert abs(float((stored * counts).sum()) / len(ALL) / float(v) - 1) < 6e-8 + 2.0**-24 / 3


@pytest.mark.parametrize("v", [1.01 * LEAST_TINY, 2.3e-22, 1e-16, 2.2e-13])
def test_tiny_second_moments_keep_their_mean(v: float) -> None:
    """To the resolution of 16 random bits; steps are up to an eighth of the value."""
    value = torch.tensor(v)
    rounded = exact(round_second_moment(value.expand(len(ALL)), ALL))
    assert len(rounded.unique()) == 2
    assert abs(float(rounded.mean()) / float(value) - 1) < 2.0**-16 / 8
    assert float(rounded.max() / rounded.min()) <= 1.125


@pytest.mark.parametrize("part", [0.25, 0.5, 0.999])
def test_second_moments_below_the_least_are_it_or_zero(part: float) -> None:
    rounded = exact(round_second_moment(torch.tensor(part * LEAST_TINY).expand(len(ALL)), ALL))
    assert rounded.unique().tolist() == [0.0, LEAST_TINY]
    assert abs(float(rounded.mean()) / LEAST_TINY - part) < 2.0**-15


def test_second_moments_that_can_be_stored_stay() -> None:
    """Zero, tiny ones, and those whose cube float32 and bfloat16 hold: the powers of two up to the largest, 2^42."""
    tiny = decode_second_moment(patterns()[:256])
    powers = 2.0 ** torch.arange(-42, 43, dtype=torch.float32)
    for random in (0, 1, 0x7FFF, 0xFFFF):
        for values in (tiny, powers):
            rounded = round_second_moment(values, torch.full((len(values),), random))
            assert torch.equal(decode_second_moment(rounded), values)


def test_one_up_from_the_largest_second_moment_is_finite() -> None:
    above = torch.tensor(2.0**42).nextafter(torch.tensor(torch.inf))
    assert bool(decode_second_moment(round_second_moment(above.expand(len(ALL)), ALL)).isfinite().all())


def test_nearest_values_are_neighbours_that_it_chooses() -> None:
    """Both roundings store the same values, so that a run can go from one to the other."""
    v = torch.logspace(-11, 12, 20_000)
    neighbours = torch.stack([exact(round_second_moment(v, torch.full((len(v),), r))) for r in (0, 0xFFFF)])
    nearest = exact(encode_second_moment(v))
    chosen = ((neighbours / nearest - 1).abs() < 1e-9).any(0)
    # At a tie, or a cube next to a stored one, the two may see another pair of neighbours.
    assert float(chosen.double().mean()) > 0.999
