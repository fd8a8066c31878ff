"""The differentiable op of bias_quick_gelu, registered with PyTorch."""

from __future__ import annotations

import torch

from reserve_kernels.quick_gelu.availability import BACKENDS
from reserve_kernels.transforms import refuse_double_backward


# The back end is chosen inside, where no compiler traces the choice.
@torch.library.custom_op("reserve_kernels::bias_quick_gelu", mutates_args=())
def quick_gelu(x: torch.Tensor, bias: torch.Tensor | None, backend: str) -> torch.Tensor:
    chosen = BACKENDS.choose(backend, x.device, x.dtype)
    return chosen.forward(x, bias) if x.numel() else x.new_empty(x.shape)


@quick_gelu.register_fake
def _(x, _bias, _backend):
    return x.new_empty(x.shape)


@torch.library.custom_op("reserve_kernels::bias_quick_gelu_backward", mutates_args=())
def quick_gelu_backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of x and bias; without a bias an empty tensor stands for its gradient."""
    if not x.numel():
        return x.new_empty(x.shape), x.new_empty(0) if bias is None else bias.new_zeros(bias.shape)
    grad_x, grad_bias = BACKENDS.choose(backend, x.device, x.dtype).backward(grad, x, bias)
    return grad_x, x.new_empty(0) if bias is None else grad_bias.to(bias.dtype)


@quick_gelu_backward.register_fake
def _(_grad, x, bias, _backend):
    return x.new_empty(x.shape), x.new_empty(0) if bias is None else bias.new_empty(bias.shape)


def _setup_context(ctx, inputs, output):
    x, bias, ctx.backend = inputs
    ctx.save_for_backward(x, bias)


def _backward(ctx, grad):
    x, bias = ctx.saved_tensors
    grad_x, grad_bias = torch.ops.reserve_kernels.bias_quick_gelu_backward(grad, x, bias, ctx.backend)
    return grad_x, None if bias is None else grad_bias, None


quick_gelu.register_autograd(_backward, setup_context=_setup_context)
quick_gelu_backward.register_autograd(refuse_double_backward("bias_quick_gelu"))
