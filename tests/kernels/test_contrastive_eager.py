"""The ways through autograd to the back ends: one function of autograd for plain tensors, the op for all else."""

from __future__ import annotations

import contextlib

import pytest
import torch

from reserve_kernels import contrastive_loss
from reserve_kernels.contrastive import eager
from tests.kernels.contrastive_cases import Ops, every_backend, losses_and_gradients, make_inputs, on_backend

every_path = pytest.mark.parametrize("path", [contextlib.nullcontext, Ops])


@every_backend
def test_another_dispatch_path_gives_the_same(backend):
    """Under a dispatch mode the call is made of the registered op; otherwise it is one function of autograd."""
    inputs = make_inputs()
    direct = losses_and_gradients(on_backend(backend), inputs, torch.float32)
    with Ops() as ops:
        by_op = losses_and_gradients(on_backend(backend), inputs, torch.float32)
    assert "reserve_kernels.contrastive_logsumexp.default" in ops.names
    for a, b in zip(direct, by_op, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@every_backend
@every_path
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("pairs", [37, 300])
def test_saved_tensors_may_lie_elsewhere_in_their_memory(backend, path, step, pairs):
    """As a hook that packs several tensors into one memory returns them."""
    inputs = {k: v.requires_grad_() for k, v in make_inputs(pairs, 11, 8).items()}

    def pack(tensor):
        memory = tensor.new_full((64 + step * tensor.numel(),), torch.nan)
        memory[64::step] = tensor.flatten()
        return memory, tensor.shape

    def unpack(packed):
        memory, shape = packed
        return memory[64::step].view(shape)

    expected = torch.autograd.grad(contrastive_loss(**inputs, log_scale=1.3, backend=backend).loss, inputs.values())
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack), path():
        loss = contrastive_loss(**inputs, log_scale=1.3, backend=backend).loss
    for out, truth in zip(torch.autograd.grad(loss, inputs.values()), expected, strict=True):
        torch.testing.assert_close(out, truth)


@every_backend
@every_path
@pytest.mark.parametrize("name", ["x", "y", "x_extra", "y_extra", "log_scale"])
def test_lazily_negated_arguments_equal_negated_ones(backend, path, name):
    """A view with the negative bit, as the imaginary part of a conjugate is, has its numbers in memory negated."""
    inputs = make_inputs(dtype=torch.float32) | {"log_scale": torch.tensor(1.3)}
    results = []
    for change in (torch._neg_view, torch.neg):
        leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
        with path():
            losses = contrastive_loss(**(leaves | {name: change(leaves[name])}), backend=backend)
            results.append([*losses, *torch.autograd.grad(losses.loss, leaves.values())])
    for out, expected in zip(*results, strict=True):
        torch.testing.assert_close(out, expected)


@every_backend
@every_path
@pytest.mark.parametrize("outputs", [("x_to_y",), ("y_to_x",), ("loss",), ("x_to_y", "y_to_x"), ("loss", "x_to_y")])
def test_lazily_negated_gradients_equal_negated_ones(backend, path, outputs):
    leaves = {k: v.requires_grad_() for k, v in make_inputs().items()}
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    with path():
        losses = contrastive_loss(**leaves, log_scale=1.3, backend=backend)
        used = [getattr(losses, name) for name in outputs]
        grads = [torch.randn_like(loss) for loss in used]
        results = [
            torch.autograd.grad(used, leaves.values(), [change(grad) for grad in grads], **options)
            for change in (torch._neg_view, torch.neg)
        ]
    for out, expected in zip(*results, strict=True):
        torch.testing.assert_close(out, expected)


# The problems: 37 pairs with each other, x with the 11 of y_extra, and y with the 5 of x_extra.
@every_backend
@pytest.mark.parametrize(
    ("wanted", "problems"),
    [
        (("x_extra",), [(37, 5)]),
        (("y_extra",), [(37, 11)]),
        (("x_extra", "y_extra"), [(37, 11), (37, 5)]),
        (("x",), [(37, 37), (37, 11)]),
        (("y",), [(37, 37), (37, 5)]),
        (("log_scale",), [(37, 37), (37, 11), (37, 5)]),
    ],
    ids=str,
)
def test_problems_without_a_wanted_gradient_have_no_backward_pass(monkeypatch, backend, wanted, problems):
    inputs, ran = make_inputs() | {"log_scale": torch.tensor(1.3)}, []
    leaves = {k: v.requires_grad_(k in wanted) for k, v in inputs.items()}
    with Ops():
        loss = contrastive_loss(**leaves, backend=backend).loss
        expected = torch.autograd.grad(loss, [leaves[name] for name in wanted])
    gradients = eager.gradients

    def counted(*arguments):
        ran.append((len(arguments[3]), len(arguments[4])))
        return gradients(*arguments)

    monkeypatch.setattr(eager, "gradients", counted)
    contrastive_loss(**leaves, backend=backend).loss.backward()
    assert ran == problems
    for name, grad in zip(wanted, expected, strict=True):
        torch.testing.assert_close(leaves[name].grad, grad)
    assert all(leaf.grad is None for name, leaf in leaves.items() if name not in wanted)
