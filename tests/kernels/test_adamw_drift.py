"""BF16AdamW against AdamW in float64 over 10,000 steps, at any betas: no part of it drifts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from reserve_kernels import BF16AdamW
from reserve_kernels.adamw.reference import decode_second_moment
from tests.kernels.adamw_cases import needs_native

pytestmark = needs_native  # the reference takes minutes
ELEMENTS = 256
LR = 1e-4
EPS = 1e-12
STEPS = 10_000


@dataclass
class Run:
    """What a run ends with, as ratios to float64's: sqrt(v) by element; m, the last step and the weights as wholes."""

    root: torch.Tensor
    m: float
    step: float
    weight: float


def alike(ours: torch.Tensor, truth: torch.Tensor) -> float:
    """The factor that is left between `truth` and `ours`, by least squares."""
    return float((ours.double() * truth).sum() / (truth * truth).sum())


def run(betas: tuple[float, float], kind: str, scale: float | torch.Tensor, steps: int = STEPS) -> Run:
    """`steps` steps with gradients of a `kind`: "constant", "noise", with a "drift", or "decaying" to a hundredth."""
    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.zeros(ELEMENTS))
    optimizer = BF16AdamW([parameter], LR, betas=betas, eps=EPS, weight_decay=0.0, bias_correction=True)
    m, v, w = torch.zeros(3, ELEMENTS, dtype=torch.float64)
    for t in range(1, steps + 1):
        g = torch.ones(ELEMENTS) if kind == "constant" else torch.randn(ELEMENTS, generator=generator)
        g = (g + 0.1 if kind == "drift" else g) * scale
        if kind == "decaying" and t > steps // 4:
            g = g / 100
        parameter.grad = g
        before = parameter.detach().clone()
        optimizer.step()
        m.mul_(betas[0]).add_(g.double(), alpha=1 - betas[0])
        v.mul_(betas[1]).add_(g.double() ** 2, alpha=1 - betas[1])
        step = LR * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + EPS)
        w -= step
    state = optimizer.state[parameter]
    root = (decode_second_moment(state["v"]).double() / v).sqrt()
    # Elements of unlike gradients count alike.
    size = torch.as_tensor(scale).double()
    return Run(
        root, alike(state["m"] / size, m / size), alike(before - parameter.detach(), step), alike(parameter.detach(), w)
    )


def check(result: Run, *, spread: float = 0.02, bias: float = 0.02) -> None:
    """`spread` bounds the usual element's error of sqrt(v), `bias` what is left of it over all elements."""
    assert float((result.root - 1).abs().median()) < spread
    assert abs(float(result.root.mean()) - 1) < bias
    assert abs(float(result.root.median()) - 1) < bias
    assert abs(result.m - 1) < bias
    assert abs(result.step - 1) < bias
    assert abs(result.weight - 1) < bias


SCALES = torch.logspace(-6, 4, ELEMENTS)


@pytest.mark.parametrize(("betas", "kind"), [((0.9, 0.999), "noise"), ((0.99, 0.9999), "constant")], ids=str)
def test_no_drift_at_large_betas(betas: tuple[float, float], kind: str) -> None:
    """Two of the slow test's cases below."""
    check(run(betas, kind, SCALES))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["constant", "noise", "drift", "decaying"])
@pytest.mark.parametrize("beta2", [0.95, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("beta1", [0.0, 0.9, 0.95, 0.99])
def test_no_drift_at_any_betas(beta1: float, beta2: float, kind: str) -> None:
    check(run((beta1, beta2), kind, SCALES))


@pytest.mark.parametrize("scale", [1e-8, 3e-7])
def test_tiny_constant_gradients(scale: float) -> None:
    """Their cubes are subnormal: v is stored to 3 bits, and moves between two values up to an eighth apart."""
    check(run((0.9, 0.999), "constant", scale, steps=4000), spread=0.04, bias=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-9, 1e-8, 1e-7, 4e-7])
@pytest.mark.parametrize("beta2", [0.95, 0.999, 0.9999])
def test_tiny_noisy_gradients_spread_more(beta2: float, scale: float) -> None:
    """By an eighth of v at most. The mean of 1 / sqrt(v) over that spread exceeds that of its mean, by 2%."""
    check(run((0.9, beta2), "noise", scale), spread=0.1, bias=0.04)


def test_the_state_forgets_a_gradient_that_was() -> None:
    """v of an element without gradient decays through all stored values, to zero."""
    parameter = torch.nn.Parameter(torch.ones(64))
    optimizer = BF16AdamW([parameter], LR, betas=(0.9, 0.95), weight_decay=0.0)
    parameter.grad = torch.full((64,), 1e3)
    optimizer.step()
    parameter.grad = torch.zeros(64)
    state = optimizer.state[parameter]
    for t in range(1, 2001):
        optimizer.step()
        if t in (200, 400, 600, 1000):  # v = 5e4 * 0.95^t: 2e0 … 3e-18
            mean = float(decode_second_moment(state["v"]).double().mean())
            assert mean == pytest.approx(0.05 * 1e6 * 0.95**t, rel=0.05)
    assert not decode_second_moment(state["v"]).any()
    assert bool(parameter.isfinite().all())
