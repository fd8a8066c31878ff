"""What a step of BF16AdamW means, in plain PyTorch (SPEC 9); exact with moments in float64."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from reserve_kernels.adamw.stochastic import random_bits, read_tiny, round_first_moment, round_second_moment

PRECISION_BIT = 1.0 + 2.0**-9
"""A second moment that is stored as a negative number decodes to its magnitude times this."""
SMALLEST_NORMAL = torch.finfo(torch.float32).tiny
LARGEST_GRADIENT = {torch.bfloat16: 2.0**21, torch.float32: 2.0**63, torch.float64: 2.0**511}
"""The clamp of finite gradients for each dtype of the moments. It keeps the second moment, a mean of squares, finite
(in bfloat16 its cube): infinity would stay forever and make the weight NaN."""
CPU_PIECE = 1 << 16
"""Elements updated at a time on the CPU, so that two dozen passes over them stay in the cache."""


class Settings(NamedTuple):
    """The scalars of a step. `m_scale` and `v_scale` are the bias correction, 1 / (1 - beta^t), or 1 for none."""

    learning_rate: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    m_scale: float
    v_scale: float


def encode_second_moment(v: torch.Tensor) -> torch.Tensor:
    """float32 v >= 0 -> bfloat16: its cube; the sign says which of two values is nearer.

    The cube trades exponent range, which bfloat16 has in excess here, for precision. The unused sign adds a bit.
    """
    cube = _flushed(v * v * v)
    rounded = cube.bfloat16()
    wide = rounded.float()
    # For cubes below about 2^-117 both distances are subnormal: a tie.
    plain = _flushed((wide - cube).abs())
    raised = _flushed((wide * PRECISION_BIT - cube).abs())
    # The negative wins ties, zero included.
    return torch.where(plain < raised, rounded, -rounded)


def _flushed(x: torch.Tensor) -> torch.Tensor:
    """x >= 0 with subnormal numbers flushed to zero, as on the hardware of the released training."""
    return torch.where(x < SMALLEST_NORMAL, 0.0, x)


def decode_second_moment(stored: torch.Tensor) -> torch.Tensor:
    """The inverse, of `round_second_moment` as well: bfloat16 -> float32."""
    return torch.where(stored.abs() < SMALLEST_NORMAL, read_tiny(stored), _read_cube(stored))


def _read_cube(stored: torch.Tensor) -> torch.Tensor:
    """As `decode_second_moment`, with 0 for subnormal cubes, which `encode_second_moment` never stores."""
    magnitude = stored.float().abs()
    cube = torch.where(stored < 0, magnitude * PRECISION_BIT, magnitude)
    root = cube.pow(1.0 / 3.0)
    # 1/3 is inexact in float32, which matters for small cubes: one Newton step corrects the root.
    square = root * root
    return torch.where(cube >= SMALLEST_NORMAL, root - (square * root - cube) / (3.0 * square), 0.0)


def adamw_reference_(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    m: Sequence[torch.Tensor],
    v: Sequence[torch.Tensor],
    starts: Sequence[torch.Tensor],
    settings: Settings,
    keys: Sequence[int] = (),
    firsts: Sequence[int] = (),
) -> None:
    """Updates each of `weights` with its moments in place.

    `starts` holds a tensor for each weight, or none at all. So do `keys`: the moments, in bfloat16, are rounded
    stochastically, with the bits of `random_bits(key, first, weight)`; without keys, to the nearest value.
    """
    randoms = zip(keys, firsts, strict=True) if keys else itertools.repeat(None, len(weights))
    for random, *tensors in zip(randoms, weights, gradients, m, v, *([starts] if starts else []), strict=True):
        if weights[0].is_cpu and all(tensor.is_contiguous() for tensor in tensors):
            pieces = zip(*(tensor.view(-1).split(CPU_PIECE) for tensor in tensors), strict=True)
            for i, piece in enumerate(pieces):
                _update(settings, random and (random[0], random[1] + i * CPU_PIECE), *piece)
        else:
            _update(settings, random, *tensors)


def _update(
    s: Settings,
    random: tuple[int, int] | None,
    w: torch.Tensor,
    g: torch.Tensor,
    m: torch.Tensor,
    v: torch.Tensor,
    start: torch.Tensor | None = None,
) -> None:
    most = LARGEST_GRADIENT[v.dtype]
    g = torch.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0).clamp_(-most, most)
    new_m = m.to(w.dtype, copy=True).mul_(s.beta1).add_(g, alpha=1 - s.beta1)
    new_v = v.clone() if v.dtype != torch.bfloat16 else _read_cube(v) if random is None else decode_second_moment(v)
    new_v.mul_(s.beta2).addcmul_(g, g, value=1 - s.beta2)
    if random is not None:
        bits = random_bits(*random, w)
        m.copy_(round_first_moment(new_m, bits >> 16))
        v.copy_(round_second_moment(new_v, bits & 0xFFFF))
    else:
        m.copy_(new_m)
        v.copy_(encode_second_moment(new_v) if v.dtype == torch.bfloat16 else new_v)
    update = new_m.mul_(s.m_scale).div_(new_v.mul_(s.v_scale).sqrt_().add_(s.eps))
    if s.weight_decay:
        update.add_(w if start is None else w - start.to(w.dtype), alpha=s.weight_decay)
    w.sub_(update, alpha=s.learning_rate)
