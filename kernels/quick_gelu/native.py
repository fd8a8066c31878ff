"""bias_quick_gelu by the native library, on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from reserve_kernels import native
from reserve_kernels.native import QuickGelu

DTYPES = {torch.float32: native.FLOAT32, torch.bfloat16: native.BFLOAT16}


def quick_gelu_native(
    x: torch.Tensor, bias: torch.Tensor | None, run: Callable[[QuickGelu], None] | None = None
) -> torch.Tensor:
    """As `quick_gelu_reference`. `run` replaces the library's own choice of threads and instructions, for tests."""
    # The names keep the memory alive that the pointers are to.
    x, bias = x.contiguous(), None if bias is None else bias.float().contiguous()
    out = torch.empty_like(x)
    _run(run, QuickGelu(None, x.data_ptr(), _pointer(bias), out.data_ptr(), None, *_sizes(x, bias), DTYPES[x.dtype]))
    return out


def quick_gelu_native_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    run: Callable[[QuickGelu], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `quick_gelu_reference_backward`. `run` is that of `quick_gelu_native`."""
    grad, x, bias = grad.contiguous(), x.contiguous(), None if bias is None else bias.float().contiguous()
    grad_x, grad_bias = torch.empty_like(x), x.new_empty(0 if bias is None else bias.shape[0], dtype=torch.float32)
    pointers = [grad.data_ptr(), x.data_ptr(), _pointer(bias), grad_x.data_ptr()]
    of_bias = None if bias is None else grad_bias.data_ptr()
    _run(run, QuickGelu(*pointers, of_bias, *_sizes(x, bias), DTYPES[x.dtype]))
    return grad_x, grad_bias


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _sizes(x: torch.Tensor, bias: torch.Tensor | None) -> tuple[int, int]:
    """Rows and features; without a bias, all in one row."""
    if bias is None:
        return 1, x.numel()
    return x.numel() // bias.shape[0], bias.shape[0]


def _run(run: Callable[[QuickGelu], None] | None, problem: QuickGelu) -> None:
    if run is None:
        native.library().quick_gelu_cpu(problem, torch.get_num_threads())
    else:
        run(problem)
