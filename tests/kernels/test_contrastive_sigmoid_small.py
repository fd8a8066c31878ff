"""contrastive_loss with kind="sigmoid" of few pairs on the CPU, without candidates of their own."""

from __future__ import annotations

import math

import pytest
import torch

from reserve_kernels import contrastive_loss
from reserve_kernels.contrastive import sigmoid_loss, sigmoid_small
from tests.kernels.contrastive_cases import Ops, losses_and_gradients, make_inputs
from tests.kernels.test_contrastive_sigmoid import compare_with_float64, ours, written_out

AS_THEY_ARE = {"normalize": False, "max_scale": None}


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """The calls that are made this way; a test without any would test something else."""
    found = []

    class Counted(sigmoid_small.Small):
        @classmethod
        def apply(cls, *arguments):
            found.append(arguments)
            return sigmoid_small.Small.apply(*arguments)

    monkeypatch.setattr(sigmoid_loss, "Small", Counted)
    yield found
    assert found


def pairs_alone(pairs=37, dtype=torch.float32, seed=0, bias=-2.0):
    inputs = make_inputs(pairs, 0, dtype=dtype, seed=seed)
    return {"x": inputs["x"], "y": inputs["y"], "bias": torch.tensor(bias, dtype=dtype)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pairs", [1, 7, 37, 200])
def test_losses_and_gradients_match_float64(dtype, pairs):
    compare_with_float64("auto", lambda seed: pairs_alone(pairs, dtype, seed), dtype)


@pytest.mark.parametrize(("log_scale", "bias"), [(4.6, -10.0), (4.6, 60.0), (-3.0, -90.0), (2.3, 0.0)])
def test_large_logits_match_float64(log_scale, bias):
    compare_with_float64("auto", lambda seed: pairs_alone(seed=seed, bias=bias), torch.float32, log_scale)


@pytest.mark.parametrize("scaling", [{}, AS_THEY_ARE, {"normalize": False, "max_scale": 2.5}, {"max_scale": 2.5}])
@pytest.mark.parametrize("outputs", [("loss",), ("x_to_y",), ("y_to_x",), ("loss", "x_to_y", "y_to_x")])
def test_every_gradient_matches_the_reference(scaling, outputs):
    """Those of x_to_y and y_to_x come from logits that are computed again."""
    grads = []
    for backend in ("auto", "reference"):
        leaves = {k: v.requires_grad_() for k, v in pairs_alone(dtype=torch.float64).items()}
        leaves["log_scale"] = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
        losses = contrastive_loss(**leaves, kind="sigmoid", backend=backend, **scaling)._asdict()
        total = sum((losses[name] * torch.arange(37)).sum() for name in outputs)
        grads.append(torch.autograd.grad(total, leaves.values()))
    for out, expected in zip(*grads, strict=True):
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)


def test_confident_pairs_keep_their_digits():
    """softplus(l) - l of a large l would be a multiple of a rounding of l."""
    x = (torch.eye(64)[:37] * 5).requires_grad_()
    out = ours()(x=x, y=x, log_scale=math.log(40.0), bias=-20.0)
    truth = written_out(x.double(), x.double(), torch.tensor(40.0).double().log(), -20.0)[1]
    torch.testing.assert_close(out.x_to_y.double(), truth, rtol=1e-4, atol=0)


@pytest.mark.parametrize("wanted", ["x", "y", "log_scale", "bias"])
def test_one_gradient_alone_equals_that_among_all(wanted):
    inputs = pairs_alone() | {"log_scale": torch.tensor(1.3)}
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    expected = torch.autograd.grad(ours()(**leaves).loss, leaves[wanted])[0]
    alone = inputs[wanted].clone().requires_grad_()
    ours()(**(inputs | {wanted: alone})).loss.backward()
    assert torch.equal(alone.grad, expected)


def test_the_op_gives_the_same():
    inputs = pairs_alone()
    direct = losses_and_gradients(ours(), inputs, torch.float32)
    with Ops() as ops:
        by_op = losses_and_gradients(ours(), inputs, torch.float32)
    assert "reserve_kernels.contrastive_sigmoid.default" in ops.names
    for own, other in zip(direct, by_op, strict=True):
        torch.testing.assert_close(own, other)


def test_two_runs_and_two_backward_passes_give_the_same_bits():
    runs = [losses_and_gradients(ours(), pairs_alone(200), torch.float32) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    leaves = {k: v.requires_grad_() for k, v in pairs_alone().items()}
    loss = ours()(**leaves, log_scale=1.3).loss
    first, second = (torch.autograd.grad(loss, leaves.values(), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_several_gradients_at_once():
    leaves = {k: v.requires_grad_() for k, v in pairs_alone(dtype=torch.float64).items()}
    loss = ours()(**leaves, log_scale=1.3).loss
    alone = torch.autograd.grad(loss, leaves.values(), retain_graph=True)
    factors = torch.tensor([1.0, -2.0], dtype=torch.float64)
    together = torch.autograd.grad(loss, leaves.values(), factors, is_grads_batched=True)
    for found, one in zip(together, alone, strict=True):
        torch.testing.assert_close(found, torch.stack((one, -2 * one)))


def test_a_double_backward_is_refused():
    leaves = {k: v.requires_grad_() for k, v in pairs_alone().items()}
    grad = torch.autograd.grad(ours()(**leaves, log_scale=1.3).loss, leaves["x"], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="contrastive_loss has no double backward"):
        grad.sum().backward()


def test_nan_stays_visible():
    inputs = {k: v.requires_grad_() for k, v in pairs_alone().items()}
    inputs["x"].data[3, 5] = math.nan
    out = ours()(**inputs, log_scale=1.0)
    assert out.loss.isnan()
    assert out.x_to_y.isnan().nonzero().flatten().tolist() == [3]


def test_autocast_does_not_lower_the_logits():
    leaves = {k: v.requires_grad_() for k, v in pairs_alone().items()}
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = ours()(**leaves, log_scale=1.0).loss
            results.append([loss, *torch.autograd.grad(loss, leaves.values())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_more_pairs_are_taken_a_block_at_a_time(calls):
    for pairs, expected in ((512, 1), (513, 1)):
        ours()(**{k: v.requires_grad_() for k, v in pairs_alone(pairs).items()}, log_scale=1.0)
        assert len(calls) == expected
