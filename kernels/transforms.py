"""Refuses the transformations that the ops do not support, which PyTorch would let pass with wrong or no derivatives.

A custom operator has a backward pass and nothing else: PyTorch takes its forward derivative to be zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch._C import _functorch
from torch.autograd import forward_ad


def refuse_transforms(op: str, *tensors: torch.Tensor | None) -> None:
    """Raises NotImplementedError if one of `tensors`, the arguments of `op`, is being transformed.

    That is by forward-mode differentiation, vmap, or the reverse mode of torch.func. All back ends refuse, also those
    made of PyTorch's functions, so that what works does not depend on the machine. Outside of transformations it looks
    at two integers.
    """
    if not transforming():
        return
    if torch.compiler.is_compiling():
        # A compiler cannot ask about a tensor. It leaves the call to eager mode, which does, unless fullgraph=True.
        raise NotImplementedError(f"{op} does not support torch.func and forward-mode differentiation when compiled")
    for tensor in tensors:
        if tensor is not None:
            _refuse(op, tensor)


# A compiler that reached this function on its own would see no tangents.
@torch._disable_dynamo
def _refuse(op: str, tensor: torch.Tensor) -> None:
    if _functorch.is_batchedtensor(tensor):
        raise NotImplementedError(
            f"{op} does not support torch.func.vmap: call it on the whole batch, or once for each element"
        )
    if not tensor.is_floating_point():
        return
    tracked = _functorch.is_gradtrackingtensor(tensor)
    if forward_ad._current_level >= 0:
        # torch.func.jvp hides the tangents of an outer level from an inner one: what is tracked may have some.
        if tracked or forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                f"{op} does not support forward-mode differentiation (torch.func.jvp, jacfwd, "
                "torch.autograd.forward_ad): it has a backward pass only"
            )
    elif tracked and torch.is_grad_enabled() and _requires_grad(tensor):
        raise NotImplementedError(
            f"{op} does not support torch.func.grad, vjp and jacrev: use torch.autograd.grad or backward()"
        )


def _requires_grad(tensor: torch.Tensor) -> bool:
    """Whether a tensor that torch.func tracks requires a gradient at any of its levels."""
    while _functorch.is_gradtrackingtensor(tensor):
        if tensor.requires_grad:
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def transforming() -> bool:
    """Whether any transformation is active."""
    return _functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


# What torch.compiler.assume_constant_result does, which would import Triton: the compiler calls the function while it
# traces. It guards its graphs by the active transformations itself.
transforming._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_plain(*tensors: torch.Tensor | None) -> bool:
    """Whether a call may bypass PyTorch's dispatcher, which costs some 50 microseconds.

    No compiler, tracer, transformation or dispatch mode is active, and each tensor is of PyTorch's own class, on the
    CPU or CUDA, with its numbers in memory as they are: not lazily negated. A default device, which is a mode of
    __torch_function__, must not change the way and with it the last bits.
    """
    return (
        not torch.compiler.is_compiling()
        and not transforming()
        and torch._C._get_tracing_state() is None  # torch.jit.trace would take the result for a constant
        and torch._C._len_torch_dispatch_stack() == 0
        and all(
            t is None
            or (type(t) in (torch.Tensor, torch.nn.Parameter) and t.device.type in ("cpu", "cuda") and not t.is_neg())
            for t in tensors
        )
    )


def refuse_double_backward(op: str) -> Callable[..., NoReturn]:
    """What to register as the backward pass of the op that is the backward pass of `op`."""

    def refuse(ctx: Any, *grads: Any) -> NoReturn:
        raise RuntimeError(f"{op} has no double backward")

    return refuse
