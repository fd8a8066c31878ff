"""contrastive_loss of vectors as they are, and with other bounds of the temperature."""

from __future__ import annotations

import math

import pytest
import torch

from reserve_kernels import contrastive_loss
from reserve_kernels.contrastive import blocks, passes
from reserve_kernels.contrastive.reference import NO_MAX_LOG_SCALE, Scaling
from tests.kernels.contrastive_cases import DRAWS, Ops, every_backend, losses_and_gradients, make_inputs
from tests.kernels.numerics import assert_as_good_as_reference

AS_THEY_ARE = {"normalize": False, "max_scale": None}


def written_out(x, y, log_scale, x_extra, y_extra):
    """Cross-entropy on materialised logits of vectors as they are."""
    n, scale = torch.arange(len(x)), log_scale.exp()
    forward = torch.nn.functional.cross_entropy(scale * x @ torch.cat((y, y_extra)).T, n, reduction="none")
    backward = torch.nn.functional.cross_entropy(scale * y @ torch.cat((x, x_extra)).T, n, reduction="none")
    return (forward.mean() + backward.mean()) / 2, forward, backward


def by(backend):
    return lambda **arguments: contrastive_loss(**arguments, **AS_THEY_ARE, backend=backend)


def compare_with_float64(backend, make, dtype, log_scale):
    truth, plain, out = (
        [losses_and_gradients(run, make(seed), of, log_scale) for seed in range(DRAWS)]
        for run, of in ((written_out, torch.float64), (by("reference"), dtype), (by(backend), dtype))
    )
    for place in range(len(out[0])):
        truths, plains, outs = (torch.stack([draw[place] for draw in each]) for each in (truth, plain, out))
        assert_as_good_as_reference(outs, truths, plains)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("pairs", "extra"), [(37, 11), (1, 3), (7, 200)])
def test_vectors_as_they_are_match_float64(backend, dtype, pairs, extra):
    compare_with_float64(backend, lambda seed: make_inputs(pairs, extra, dtype=dtype, seed=seed), dtype, -3.0)


@pytest.mark.parametrize("backend", ["dense", "chunked"])
@pytest.mark.parametrize("log_scale", [-3.0, 1.0])
@pytest.mark.parametrize("native", [True, False])
def test_large_problems_match_float64(monkeypatch, backend, log_scale, native):
    """One exp for both directions if the longest vectors allow it, and a maximum in each direction otherwise."""
    if not native:
        monkeypatch.setattr(blocks, "unavailable", lambda device, dtype: "not built")
    monkeypatch.setattr(passes, "WORTH_SHARING", 1)
    monkeypatch.setattr(passes, "BLOCK_BYTES", 1)
    compare_with_float64(backend, lambda seed: make_inputs(100, 150, seed=seed), torch.float32, log_scale)


@pytest.mark.parametrize(("length", "log_scale", "bounded"), [(1.0, 4.0, True), (1.0, 4.2, False), (8.0, 0.0, False)])
def test_the_longest_vectors_decide_whether_their_exp_is_safe(length, log_scale, bounded):
    x = torch.nn.functional.normalize(torch.randn(300, 24), dim=1) * length
    scaling = Scaling(False, NO_MAX_LOG_SCALE)
    assert passes.bounded_by(torch.tensor(log_scale), x, x, scaling) == bounded
    x[7, 3] = math.nan
    assert not passes.bounded_by(torch.tensor(log_scale), x, x, scaling)


@every_backend
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_max_scale_bounds_the_temperature(backend, kind):
    if kind == "sigmoid" and backend == "dense":
        backend = "auto"
    inputs, log_scale = make_inputs(), torch.tensor(3.0, requires_grad=True)
    bounded = contrastive_loss(**inputs, log_scale=log_scale, kind=kind, max_scale=2.5, backend=backend)
    expected = contrastive_loss(**inputs, log_scale=math.log(2.5), kind=kind, backend=backend)
    assert torch.equal(bounded.loss, expected.loss)
    assert torch.autograd.grad(bounded.loss, log_scale)[0] == 0


@every_backend
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("normalize", [True, False])
def test_log_scale_at_its_bound_has_a_gradient(backend, kind, normalize):
    """In float32 ln 100 is above what Python has for it. Training clamps log_scale to it, and would never leave it."""
    if kind == "sigmoid" and backend == "dense":
        backend = "auto"
    gradients = []
    for dtype in (torch.float32, torch.float64):
        log_scale = torch.tensor(math.log(100.0), dtype=dtype, requires_grad=True)
        inputs = {k: v.to(dtype) / 8 for k, v in make_inputs().items()}
        loss = contrastive_loss(**inputs, log_scale=log_scale, kind=kind, normalize=normalize, backend=backend).loss
        gradients.append(torch.autograd.grad(loss, log_scale)[0].double())
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=0)


@every_backend
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_no_max_scale_lets_the_temperature_grow(backend, kind):
    if kind == "sigmoid" and backend == "dense":
        backend = "auto"
    losses = []
    for dtype in (torch.float32, torch.float64):
        inputs = {k: v.to(dtype) for k, v in make_inputs().items()}
        log_scale = torch.tensor(6.0, dtype=dtype, requires_grad=True)
        out = contrastive_loss(**inputs, log_scale=log_scale, kind=kind, max_scale=None, backend=backend)
        losses.append([out.loss, torch.autograd.grad(out.loss, log_scale)[0]])
    for out, truth in zip(*losses, strict=True):
        torch.testing.assert_close(out.double(), truth, rtol=1e-4, atol=0)
    assert losses[0][1] != 0


@every_backend
def test_another_dispatch_path_gives_the_same(backend):
    direct = losses_and_gradients(by(backend), make_inputs(), torch.float32, -3.0)
    with Ops() as ops:
        by_op = losses_and_gradients(by(backend), make_inputs(), torch.float32, -3.0)
    assert "reserve_kernels.contrastive_logsumexp.default" in ops.names
    for a, b in zip(direct, by_op, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_compiles_as_one_graph():
    inputs = make_inputs(9, 5) | {"log_scale": torch.tensor(-1.0)}

    def loss(*values):
        return by("auto")(**dict(zip(inputs, values, strict=True))).loss

    leaves, others = ([v.clone().requires_grad_() for v in inputs.values()] for _ in range(2))
    torch.compile(loss, fullgraph=True)(*leaves).backward()
    loss(*others).backward()
    for leaf, other in zip(leaves, others, strict=True):
        torch.testing.assert_close(leaf.grad, other.grad)
