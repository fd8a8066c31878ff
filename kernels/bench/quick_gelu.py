"""bias_quick_gelu: bias and activation after a product, against PyTorch's ops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch

from reserve_kernels import bias_quick_gelu
from reserve_kernels.bench.case import Case, module
from reserve_kernels.bench.interleaved import OURS, Contender, Missing, largest_relative_difference

SHAPES = ((512, 3072), (4096, 3072))
Activation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cases(device: torch.device) -> Iterator[Case]:
    """Forward and backward, in float32 on the CPU and bfloat16 on a GPU."""
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    for rows, features in SHAPES:
        x, grad = (torch.randn(rows, features, device=device).to(dtype) for _ in range(2))
        bias = torch.randn(features, device=device).to(dtype)
        inputs = (x.requires_grad_(), bias.requires_grad_(), grad)
        builders = {OURS: functools.partial(_contender, inputs, bias_quick_gelu)}
        builders["PyTorch"] = functools.partial(_contender, inputs, _plain)
        builders["PyTorch, compiled"] = functools.partial(_compiled, inputs, device)
        yield Case(
            "forward and backward", f"{rows} x {features}", builders, largest_relative_difference, _tolerance(dtype)
        )


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 2e-2


def _plain(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    z = x + bias
    return z * torch.sigmoid(1.702 * z)


def _compiled(inputs: tuple[torch.Tensor, ...], device: torch.device) -> Contender:
    if device.type == "cpu":
        # Without that function, which is PyTorch's own, compiling says what is missing.
        find = getattr(module("torch._inductor.cpp_builder"), "get_cpp_compiler", lambda: None)
        try:
            find()
        except (RuntimeError, OSError) as error:
            raise Missing(f"torch.compile finds no C++ compiler: {error}".partition("\n")[0]) from error
    return _contender(inputs, torch.compile(_plain))


def _contender(inputs: tuple[torch.Tensor, ...], activation: Activation) -> Contender:
    x, bias, grad = inputs

    def step() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(activation(x, bias), (x, bias), grad)

    return Contender(step, lambda: [activation(x, bias).detach(), *step()])
