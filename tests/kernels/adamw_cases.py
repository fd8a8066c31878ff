"""Problems for the back ends of BF16AdamW's step, and the truth that their results are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from reserve_kernels import BF16AdamW, native
from reserve_kernels.adamw.reference import Settings, adamw_reference_, encode_second_moment
from tests.kernels.numerics import assert_as_good_as_reference

PLAIN = Settings(1e-3, 0.9, 0.98, 1e-6, 0.1, 1.0, 1.0)
CORRECTED = Settings(3e-4, 0.9, 0.98, 1e-8, 0.0, 1 / (1 - 0.9**3), 1 / (1 - 0.98**3))
# Around the 4 numbers that a GPU's thread takes at a time, the 2048 of its block and the 16384 of a CPU's thread.
SIZES = [1, 0, 3, 4, 5, 37, 2047, 2048, 2049, 16383, 16384, 16385, 40000]

needs_native = pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))


@dataclass
class Tensors:
    """The arguments of a step: lists of tensors, updated in place."""

    weights: list[torch.Tensor]
    gradients: list[torch.Tensor]
    m: list[torch.Tensor]
    v: list[torch.Tensor]
    starts: list[torch.Tensor]

    def lists(self) -> list[list[torch.Tensor]]:
        return [self.weights, self.gradients, self.m, self.v, self.starts]

    def copy(self, device: str = "cpu") -> Tensors:
        return Tensors(*([tensor.detach().to(device, copy=True) for tensor in part] for part in self.lists()))


def draw(sizes=SIZES, moments=torch.bfloat16, *, with_start=False, seed=0) -> Tensors:
    """Random problems after some steps; gradients from 1e-6 to 10, some not finite."""
    generator = torch.Generator().manual_seed(seed)

    def normal(size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    weights = [normal(size) for size in sizes]
    magnitudes = [10.0 ** (torch.rand(size, generator=generator) * 7 - 6) for size in sizes]
    gradients = [normal(size) * magnitude for size, magnitude in zip(sizes, magnitudes, strict=True)]
    for gradient, bad in zip(gradients, [torch.nan, torch.inf, -torch.inf] * len(sizes), strict=False):
        gradient[7::11] = bad
    m = [(normal(size) * magnitude).to(moments) for size, magnitude in zip(sizes, magnitudes, strict=True)]
    v = [(normal(size) * magnitude).square() for size, magnitude in zip(sizes, magnitudes, strict=True)]
    v = [encode_second_moment(x) if moments == torch.bfloat16 else x for x in v]
    return Tensors(weights, gradients, m, v, [normal(size).bfloat16() for size in sizes] if with_start else [])


def exact_root(stored: torch.Tensor) -> torch.Tensor:
    """A stored second moment in float64."""
    if stored.dtype != torch.bfloat16:
        return stored.double()
    return (stored.double().abs() * torch.where(stored < 0, 1 + 2.0**-9, 1.0)).pow(1 / 3)


def check_step(run, settings: Settings, before: Tensors) -> None:
    """`run(tensors, settings)` against a step in float64 from the same stored moments."""
    truth = Tensors(
        [w.double() for w in before.weights],
        [g.double() for g in before.gradients],
        [m.double() for m in before.m],
        [exact_root(v) for v in before.v],
        [start.double() for start in before.starts],
    )
    plain, ours = before.copy(), before.copy()
    for tensors in (truth, plain):
        adamw_reference_(*tensors.lists(), settings)
    run(ours, settings)
    # Half a step of what is stored, and a little: what is rounded is itself off by some units in the last place.
    steps = (2.0**-8, 2.0**-8 / 3) if before.m[0].dtype == torch.bfloat16 else (0.0, 0.0)
    for i, size in enumerate(map(len, before.weights)):
        if size == 0:
            continue
        assert_as_good_as_reference(ours.weights[i], truth.weights[i], plain.weights[i])
        # What is rounded for storage is off by units in the last place of the terms it is a sum of.
        terms = before.m[i].double().abs() + before.gradients[i].double().nan_to_num(0.0, 0.0, 0.0).abs()
        assert bool(((ours.m[i].double() - truth.m[i]).abs() <= steps[0] * truth.m[i].abs() + 2e-7 * terms).all())
        # Cubes below float32's normal numbers are stored as 0.
        allowed = (steps[1] + 1e-6) * truth.v[i] + 2.3e-13
        assert bool(((exact_root(ours.v[i]) - truth.v[i]).abs() <= allowed).all())
        assert torch.equal(ours.gradients[i].nan_to_num(), before.gradients[i].nan_to_num())


def bits(x: torch.Tensor) -> torch.Tensor:
    """A tensor's bits, which tell 0 from -0."""
    return x.contiguous().view(torch.int16 if x.dtype == torch.bfloat16 else torch.int32)


def some_weight() -> torch.Tensor:
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


def some_gradients() -> list[torch.Tensor]:
    """Four for that weight, each a tenth of the one before."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(7, 5, generator=generator) * 10.0**-i for i in range(4)]


def train(w: torch.Tensor, gradients: list[torch.Tensor], **settings) -> tuple[torch.Tensor, BF16AdamW]:
    """The weight after a step for each gradient, and the optimizer."""
    parameter = torch.nn.Parameter(w.clone())
    optimizer = BF16AdamW([parameter], lr=1e-2, **settings)
    for g in gradients:
        parameter.grad = g.clone()
        optimizer.step()
    return parameter.detach(), optimizer
