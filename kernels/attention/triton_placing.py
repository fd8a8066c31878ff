"""Launches of the Triton kernels that apply the position to queries and keys in a pass of its own."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
import triton

from reserve_kernels.attention.triton_blocks import (
    ROTARY,
    place_kernel,
    place_rows_kernel,
    rotary_table_kernel,
    unplace_kernel,
)

BLOCK = 64
"""Tokens that a program works on."""
OPTIONS = {"BLOCK": BLOCK, "num_warps": 4, "enable_fp_fusion": True}


def widths(size: int) -> dict[str, int]:
    """The kernels' constants for heads of `size` numbers: tiles are as wide as the next power of two."""
    return {"D": size, "W": triton.next_power_of_2(size)}


def rotary_table(angles: torch.Tensor, rotary: str) -> torch.Tensor:
    """Sines and cosines of angles [tokens, n], as rotary_table_kernel writes them: float32 [tokens, 2 n]."""
    tokens, count = angles.shape
    table = torch.empty(tokens, 2 * count, dtype=torch.float32, device=angles.device)
    if tokens:
        rotary_table_kernel[(triton.cdiv(tokens, BLOCK),)](
            readable(angles.float()), table, tokens,
            ROTARY=ROTARY[rotary], R=count, WIDE=triton.next_power_of_2(count), **OPTIONS,
        )  # fmt: skip
    return table


def placed_by_table(qkv: torch.Tensor, table: torch.Tensor, rotary: str) -> torch.Tensor:
    """Queries and keys of a readable qkv [tokens, 3, heads, size], the position applied: [tokens, 2, heads, size]."""
    tokens, _, heads, size = qkv.shape
    placed = qkv.new_empty(tokens, 2, heads, size)
    if placed.numel():
        place_kernel[(triton.cdiv(tokens, BLOCK), 2 * heads)](
            qkv, table, placed, tokens, heads,
            ROTARY=ROTARY[rotary], R=table.shape[1] // 2, **widths(size), **OPTIONS,
        )  # fmt: skip
    return placed


def placed(qkv: torch.Tensor, angles: torch.Tensor, rotary: str) -> torch.Tensor:
    """The same from angles [tokens, n], for any qkv."""
    with on_device(qkv):
        return placed_by_table(readable(qkv), rotary_table(angles, rotary), rotary)


def placed_rows(x: torch.Tensor, angles: torch.Tensor, rotary: str, transpose: bool) -> torch.Tensor:
    """x [tokens, heads, size] with the position applied, or with `transpose` a gradient taken back through it."""
    tokens, heads, size = x.shape
    placed = x.new_empty(tokens, heads, size)
    # Keys of one tensor with values are read where they are.
    if x.stride()[1:] != (size, 1) or x.stride(0) % 8 or x.data_ptr() % 16:
        x = readable(x)
    if placed.numel():
        with on_device(x):
            place_rows_kernel[(triton.cdiv(tokens, BLOCK), heads)](
                x, rotary_table(angles, rotary), placed, tokens, x.stride(0),
                ROTARY=ROTARY[rotary], TRANSPOSE=transpose, R=angles.shape[1], **widths(size), **OPTIONS,
            )  # fmt: skip
    return placed


def gradient_of_placed(
    grad_q: torch.Tensor, grad_k: torch.Tensor, grad_v: torch.Tensor, angles: torch.Tensor, rotary: str
) -> torch.Tensor:
    """The gradient of qkv [tokens, 3, heads, size] from those of placed queries and keys and of values."""
    tokens, heads, size = grad_q.shape
    grad_qkv = grad_q.new_empty(tokens, 3, heads, size)
    if grad_qkv.numel():
        with on_device(grad_q):
            unplace_kernel[(triton.cdiv(tokens, BLOCK), heads)](
                *(readable(grad) for grad in (grad_q, grad_k, grad_v)), rotary_table(angles, rotary),
                grad_qkv, tokens, heads, ROTARY=ROTARY[rotary], R=angles.shape[1], **widths(size), **OPTIONS,
            )  # fmt: skip
    return grad_qkv


def readable(x: torch.Tensor) -> torch.Tensor:
    """`x` itself if it is contiguous and aligned to 16 bytes, as a linear layer's output is, else a copy."""
    x = x.contiguous()
    return x if x.data_ptr() % 16 == 0 else x.clone()


def on_device(x: torch.Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device: makes it that of `x`."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
