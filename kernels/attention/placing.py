"""The position on queries and keys before another library's attention: one pass forward, one backward."""

from __future__ import annotations

from typing import Any

import torch

from reserve_kernels.attention.packing import CrossPacking
from reserve_kernels.attention.reference import apply_rotary, rotate_qk
from reserve_kernels.precision import without_autocast
from reserve_kernels.transforms import refuse_double_backward
from reserve_kernels.triton_support import triton_unavailable

HALF = (torch.float16, torch.bfloat16)


def place(
    qkv: torch.Tensor, angles: torch.Tensor | None, rotary: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of qkv [tokens, 3, heads, size], each [tokens, heads, size], the position applied.

    Values are a view of qkv if that is contiguous. In half precision on a GPU one Triton kernel reads and writes
    queries and keys, and another one makes the gradient of qkv from those of the three; elsewhere it is plain PyTorch.
    """
    qkv = qkv.contiguous()
    if angles is None:
        return _unbound(qkv)
    if _runs_in_triton(qkv):
        return _Place.apply(qkv, angles, rotary)
    return _unbound(rotate_qk(qkv, angles, rotary))


def place_apart(
    q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same of q [tokens, heads, size] and kv [tokens_k, 2, kv_heads, size]; values are a view of kv."""
    k, v = kv.unbind(1)
    if packing.angles is None or packing.angles_k is None:
        return q, k, v
    apply = place_rows if _runs_in_triton(q) else apply_rotary
    return apply(q, packing.angles, packing.rotary), apply(k, packing.angles_k, packing.rotary), v


def _unbound(qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q, k, v = qkv.unbind(1)
    return q, k, v


def _runs_in_triton(qkv: torch.Tensor) -> bool:
    return qkv.dtype in HALF and torch.version.hip is None and triton_unavailable(qkv.device, qkv.dtype) is None


class _Place(torch.autograd.Function):
    """Joins the two ops below. A registered op alone could not return values that are a view of its input."""

    @staticmethod
    def forward(qkv: torch.Tensor, angles: torch.Tensor, rotary: str) -> tuple[torch.Tensor, ...]:
        q, k = place_rotary(qkv, angles, rotary).unbind(1)
        return q, k, qkv[:, 2]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, angles, ctx.rotary = inputs
        ctx.save_for_backward(angles)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return place_rotary_backward(*grads, *ctx.saved_tensors, ctx.rotary), None, None


@torch.library.custom_op("reserve_kernels::place_rotary", mutates_args=())
@without_autocast
def place_rotary(qkv: torch.Tensor, angles: torch.Tensor, rotary: str) -> torch.Tensor:
    """qkv [tokens, 3, heads, size] -> queries and keys with the position applied [tokens, 2, heads, size]."""
    from reserve_kernels.attention.triton_placing import placed

    return placed(qkv, angles, rotary)


@place_rotary.register_fake
def _(qkv, _angles, _rotary):
    tokens, _, heads, size = qkv.shape
    return qkv.new_empty(tokens, 2, heads, size)


@torch.library.custom_op("reserve_kernels::place_rotary_backward", mutates_args=())
@without_autocast
def place_rotary_backward(
    grad_q: torch.Tensor, grad_k: torch.Tensor, grad_v: torch.Tensor, angles: torch.Tensor, rotary: str
) -> torch.Tensor:
    """The gradient of qkv [tokens, 3, heads, size] from those of placed queries and keys and of values."""
    from reserve_kernels.attention.triton_placing import gradient_of_placed

    return gradient_of_placed(grad_q, grad_k, grad_v, angles, rotary)


@place_rotary_backward.register_fake
def _(grad_q, _grad_k, _grad_v, _angles, _rotary):
    tokens, heads, size = grad_q.shape
    return grad_q.new_empty(tokens, 3, heads, size)


@torch.library.custom_op("reserve_kernels::place_rotary_rows", mutates_args=())
@without_autocast
def place_rows(x: torch.Tensor, angles: torch.Tensor, rotary: str, transpose: bool = False) -> torch.Tensor:
    """x [tokens, heads, size] with the position applied, or with `transpose` a gradient taken back through it.

    Rows of one token must be contiguous or they are copied.
    """
    from reserve_kernels.attention.triton_placing import placed_rows

    return placed_rows(x, angles, rotary, transpose)


@place_rows.register_fake
def _(x, _angles, _rotary, _transpose=False):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _save_angles(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, angles, ctx.rotary, ctx.transpose = inputs
    ctx.save_for_backward(angles)


def _place_rows_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
    (angles,) = ctx.saved_tensors
    return place_rows(grad, angles, ctx.rotary, not ctx.transpose), None, None, None


place_rows.register_autograd(_place_rows_backward, setup_context=_save_angles)


place_rotary_backward.register_autograd(refuse_double_backward("rotary_attention"))
