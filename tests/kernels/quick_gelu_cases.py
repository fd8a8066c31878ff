"""Inputs for bias_quick_gelu, and what its back ends compute of them."""

from __future__ import annotations

import torch

from reserve_kernels import bias_quick_gelu
from tests.kernels.numerics import assert_as_good_as_reference


def make_inputs(shape=(37, 64), bias=True, seed=0):
    """x, the bias or None, and the output's gradient, all float64, with both tails of the sigmoid."""
    generator = torch.Generator().manual_seed(seed)
    x, grad = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return 3 * x, torch.randn(shape[-1], generator=generator, dtype=torch.float64) if bias else None, grad


def output_and_gradients(inputs, dtype, backend, bias_dtype=None, device="cpu"):
    """[output, gradient of x, gradient of bias] of the op for `inputs` in `dtype`."""
    x, bias, grad = inputs
    x = x.to(device, dtype).requires_grad_()
    leaves = [x]
    if bias is not None:
        leaves.append(bias.to(device, bias_dtype or dtype).requires_grad_())
    out = bias_quick_gelu(*leaves, backend=backend)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(device, dtype))]


def rounded(inputs, dtype, bias_dtype=None):
    """The inputs as the op gets them in `dtype`, in float64: their rounding is not the op's error."""
    x, bias, grad = inputs
    return (
        x.to(dtype).double(),
        None if bias is None else bias.to(bias_dtype or dtype).double(),
        grad.to(dtype).double(),
    )


def compare(backend, inputs, dtype, bias_dtype=None, device="cpu"):
    """Holds `backend` to the rule for accuracy. The truth is computed on the CPU."""
    outs = output_and_gradients(inputs, dtype, backend, bias_dtype, device)
    truth = output_and_gradients(rounded(inputs, dtype, bias_dtype), torch.float64, "reference")
    plain = output_and_gradients(inputs, dtype, "reference", bias_dtype, device)
    assert len(outs) == (2 if inputs[1] is None else 3)
    for out, exact, reference in zip(outs, truth, plain, strict=True):
        assert_as_good_as_reference(out.cpu(), exact, reference.cpu())
