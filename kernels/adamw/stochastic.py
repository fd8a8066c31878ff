"""Stochastic rounding of BF16AdamW's bfloat16 moments: random bits that are the same everywhere, and what they round.

Each function is the same as its namesake in csrc/adamw/adamw_stochastic.h, bit for bit. Words are int64 tensors here:
PyTorch has no arithmetic of uint32.
"""

from __future__ import annotations

import torch

WORD = 0xFFFFFFFF
DOUBLE_WORD = 0xFFFFFFFFFFFFFFFF
GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: an odd number without structure."""

TINY_BELOW = 2.0**-42
"""Second moments below it have subnormal cubes, and are stored as themselves to 3 bits in the patterns of subnormal
numbers. The code of a pattern, 2 * magnitude + sign, rises with its value: codes from 2 to 255 stand for the float32
whose upper 12 bits are TINY_BASE + code."""
TINY_BASE = 424
LEAST_TINY = 1.25 * 2.0**-74
"""The value of code 2. Codes 0 and 1 are zero."""


def tensor_key(seed: int, step: int, place: int) -> int:
    """The key of a tensor's random bits, an int64: of the seed, its step, and its place among the parameters."""
    key = _mixed(_mixed(_mixed(seed) + step) + place)
    return key - (1 << 64) if key >> 63 else key


def _mixed(x: int) -> int:
    """A bijection of 64 bits that changes half of them with each of `x`: the step of the generator SplitMix64."""
    x = (x + GOLDEN) & DOUBLE_WORD
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & DOUBLE_WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & DOUBLE_WORD
    return x ^ x >> 31


def random_bits(key: int, first: int, like: torch.Tensor) -> torch.Tensor:
    """32 random bits for each element of `like`, the elements `first`, `first` + 1, … of a tensor: int64 of its shape.

    The hash "triple32" of C. Wellons' hash function prospector, keyed before its first and its second round.
    """
    offset = torch.arange(like.numel(), device=like.device).view(like.shape) + (first & WORD)
    upper = (offset >> 32) + (first >> 32)
    x = (offset & WORD) ^ (key & WORD)
    x = (x ^ x >> 17) * 0xED5AD4BB & WORD
    x = (x ^ x >> 11) + (key >> 32) + upper * (GOLDEN >> 32) & WORD
    x = x * 0xAC4C1B51 & WORD
    x = (x ^ x >> 15) * 0x31848BAB & WORD
    return x ^ x >> 14


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int32).long() & WORD


def _float32(bits: torch.Tensor) -> torch.Tensor:
    return torch.where(bits >= 1 << 31, bits - (1 << 32), bits).int().view(torch.float32)


def round_first_moment(m: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
    """float32 m -> bfloat16: a neighbour, so that the mean over `random`, which has 16 bits, is m."""
    bits = _bits(m)
    rounded = torch.where(m.isnan(), bits | 0x400000, bits + random)
    return _float32(rounded & 0xFFFF0000).bfloat16()


def round_second_moment(v: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
    """float32 v >= 0 -> bfloat16: a neighbour that can be stored, so that the mean over `random`, 16 bits, is v.

    Up with the probability x (1 + (upper - cube) / (3 cube)), where x is the cube's position between them, from 0 to
    1. The second term is there because the root is concave. The mean is then within 6e-8 of v.
    """
    clamped = v.clamp(min=TINY_BELOW)
    cube = _bits(clamped * clamped * clamped)
    # Distances in units of the cube's last place, of which a bfloat16 number has 2^16 to the next.
    significand = (cube & 0x7FFFFF) | 0x800000
    to_raised = (significand & 0xFF0000) >> 9
    beyond = cube & 0xFFFF
    above = beyond >= to_raised
    gap = torch.where(above, 0x10000 - to_raised, to_raised)
    offset = torch.where(above, beyond - to_raised, beyond)
    # Up where x exceeds r (1 - gap / (3 cube) (1 - r)), times the gap; r = random / 2^16. The last factor is a line
    # close to 2^38 / (3 significand).
    threshold = random * gap >> 16
    bend = (threshold * (gap - threshold) >> 14) * (14600 - (significand >> 11)) >> 24
    normal = 2 * (cube >> 16) + above + (offset > threshold - bend)
    code = torch.where(v < TINY_BELOW, _round_tiny(v, random), normal)
    return _float32((code >> 1 | (code & 1) << 15) << 16).bfloat16()


def _round_tiny(v: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
    """The code of a v below `TINY_BELOW`."""
    between = (_bits(v) + (random << 4) + 8 >> 20) - TINY_BASE
    # Below the least one v is rounded to it or to 0.
    least = torch.where(random.float() < v * (65536 / LEAST_TINY), 2, 0)
    return torch.where(v < LEAST_TINY, least, between)


def read_tiny(stored: torch.Tensor) -> torch.Tensor:
    """bfloat16 of a zero exponent -> the second moment that `round_second_moment` stored, float32."""
    bits = _bits(stored.float())
    code = (bits & 0x7FFFFFFF) >> 15 | bits >> 31
    return torch.where(code < 2, 0.0, _float32(TINY_BASE + code << 20))
