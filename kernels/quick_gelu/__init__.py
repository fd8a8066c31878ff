"""bias_quick_gelu: a bias and the activation z sigmoid(1.702 z) in one pass over memory (SPEC 4)."""

from __future__ import annotations

import torch

from reserve_kernels.checks import FLOATING, check_same_device, check_tensor
from reserve_kernels.quick_gelu.ops import quick_gelu
from reserve_kernels.transforms import refuse_transforms

__all__ = ["bias_quick_gelu"]


def bias_quick_gelu(x: torch.Tensor, bias: torch.Tensor | None = None, *, backend: str = "auto") -> torch.Tensor:
    """z * sigmoid(1.702 * z) with z = x + bias, the activation of CLIP and MERLOT Reserve (SPEC 4).

    It is the end of a linear layer: compute the layer without its bias and pass the bias here. Backward keeps x and
    bias and nothing else: it computes z and the sigmoid again.

    Args:
        x: [..., features]; float16, bfloat16, float32 or float64, any strides.
        bias: [features], in x's dtype or float32; None for no bias. Under autocast pass the float32 parameter itself:
            it is added in float32.
        backend: "auto" or a name from `reserve_kernels.backends()`.

    Returns:
        x's shape and dtype, contiguous. The arithmetic is float32, or float64 for float64 x.

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype, shape or device; the message names it.
        RuntimeError: the named backend cannot run here; or a double backward, which is not implemented.
        NotImplementedError: under vmap, forward-mode differentiation or torch.func.grad and its relatives.

    The gradient of x has x's dtype. That of bias has bias's dtype and is summed over rows in float32. It is
    deterministic. With infinite z the gradient is NaN, as it is in PyTorch.
    """
    check_tensor("x", x, FLOATING)
    if bias is not None:
        check_tensor("bias", bias, tuple(dict.fromkeys((x.dtype, torch.float32))))
        check_same_device("bias", bias, "x", x)
        if x.dim() == 0:
            raise ValueError("x must be [..., features] with a bias; got a scalar")
        if tuple(bias.shape) != (x.shape[-1],):
            raise ValueError(f"bias must be [features] with x's {x.shape[-1]} features; got shape {tuple(bias.shape)}")
    refuse_transforms("bias_quick_gelu", x, bias)
    return quick_gelu(x, bias, backend)
