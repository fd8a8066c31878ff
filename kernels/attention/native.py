"""rotary_attention by the native library, on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from reserve_kernels import native
from reserve_kernels.attention.packing import CrossPacking, Packing
from reserve_kernels.native import Attention

DTYPES = {torch.float32: native.FLOAT32, torch.bfloat16: native.BFLOAT16}

LONGEST_WITHOUT_AVX2 = 64
"""With more tokens PyTorch's float32 products are faster than ours of SSE2 alone (docs/kernels/attention.md)."""


def slower_than_sdpa(dtype: torch.dtype, max_seqlen: int) -> str | None:
    """Why `auto` leaves a call to PyTorch's kernel on this processor, or None."""
    if dtype != torch.float32 or native.has_avx2() or max_seqlen <= LONGEST_WITHOUT_AVX2:
        return None
    return f"without AVX2 it is slower than sdpa above {LONGEST_WITHOUT_AVX2} tokens"


MANY_KEYS = 512
"""Keys of one query from which PyTorch's kernel reads them faster in float32 (docs/kernels/attention.md)."""


def slower_for_one_query(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> str | None:
    """Why `auto` leaves sequences of one query over many keys to PyTorch's kernel, or None.

    Not where that would rotate or copy keys or take a call for each sequence, nor before a backward pass, which is
    slower there.
    """
    if q.dtype != torch.float32 or packing.max_seqlen != 1 or packing.max_seqlen_k < MANY_KEYS:
        return None
    if packing.angles is not None or packing.segment_ids is not None or q.shape[1] != kv.shape[2]:
        return None
    sequences = packing.cu_seqlens.shape[0] - 1
    if q.shape[0] != sequences or kv.shape[0] != sequences * packing.max_seqlen_k:
        return None
    if torch.is_grad_enabled() and (q.requires_grad or kv.requires_grad):
        return None
    return f"without a gradient it is slower than sdpa for one query over {MANY_KEYS} keys or more"


Run = Callable[[Attention], None]
"""Calls the library, in place of its own choice of threads and instructions, for tests."""


def attention_native(qkv: torch.Tensor, packing: Packing, run: Run | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """qkv [tokens, 3, heads, size] -> (out [tokens, heads, size], lse [tokens, heads], float32)."""
    return _forward(qkv.contiguous().unbind(1), _strides(qkv, qkv), packing.crossed(), run)


def attention_native_backward(
    grad: torch.Tensor,
    qkv: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    packing: Packing,
    run: Run | None = None,
) -> torch.Tensor:
    """The gradient of `qkv`, given that of `out` and what the forward returned."""
    grad_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    results = out.contiguous(), lse.contiguous(), grad.contiguous(), grad_qkv.unbind(1)
    _run(run, qkv.contiguous().unbind(1), _strides(qkv, qkv), packing.crossed(), *results)
    return grad_qkv


def cross_attention_native(
    q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking, run: Run | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [tokens, heads, size] and kv [tokens_k, 2, kv_heads, size] -> (out like q, lse [tokens, heads], float32)."""
    return _forward((q.contiguous(), *kv.contiguous().unbind(1)), _strides(q, kv), packing, run)


def cross_attention_native_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    kv: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    packing: CrossPacking,
    run: Run | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of `q` and `kv`, given that of `out` and what the forward returned."""
    grad_q, grad_kv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, kv))
    if q.shape[0] == 0:  # the library would take an output's gradient without memory for none
        return grad_q, grad_kv.zero_()
    inputs = q.contiguous(), *kv.contiguous().unbind(1)
    results = out.contiguous(), lse.contiguous(), grad.contiguous(), (grad_q, *grad_kv.unbind(1))
    _run(run, inputs, _strides(q, kv), packing, *results)
    return grad_q, grad_kv


Operands = tuple[torch.Tensor, ...]
"""Queries, keys and values [tokens, heads, size], or their gradients; the numbers of a token are contiguous."""


def _strides(q: torch.Tensor, kv: torch.Tensor) -> tuple[int, int]:
    """Numbers from one token to the next, which a tensor of one token need not state."""
    return q.shape[1:].numel(), kv.shape[1:].numel()


def _forward(
    operands: Operands, strides: tuple[int, int], packing: CrossPacking, run: Run | None
) -> tuple[torch.Tensor, torch.Tensor]:
    q = operands[0]
    out, lse = q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=torch.float32)
    _run(run, operands, strides, packing, out, lse)
    return out, lse


def _run(
    run: Run | None,
    operands: Operands,
    strides: tuple[int, int],
    packing: CrossPacking,
    out: torch.Tensor,
    lse: torch.Tensor,
    grad: torch.Tensor | None = None,
    grads: Operands | tuple[None, None, None] = (None, None, None),
) -> None:
    # The names keep the memory alive that the pointers are to.
    starts = _contiguous(packing.cu_seqlens, packing.cu_seqlens_k)
    angles = _contiguous(packing.angles, packing.angles_k, torch.float32)
    segment_ids = _contiguous(packing.segment_ids, packing.segment_ids_k)
    tensors = (*operands, *starts, *angles, *segment_ids, grad, out, lse, *grads)
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    (tokens, heads, size), (tokens_k, kv_heads, _) = operands[0].shape, operands[1].shape
    sizes = tokens, tokens_k, packing.cu_seqlens.shape[0] - 1, heads, kv_heads, *strides, size
    of_token = 0 if packing.angles is None else packing.angles.shape[1]
    settings = packing.scale, native.ROTARY[packing.rotary], DTYPES[out.dtype]
    problem = Attention(*pointers, *sizes, of_token, *settings)
    if run is None:
        native.library().attention_cpu(problem, torch.get_num_threads())
    else:
        run(problem)


def _contiguous(
    x: torch.Tensor | None, x_k: torch.Tensor | None, dtype: torch.dtype | None = None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Both contiguous and in `dtype`, if not None: one tensor if they are, by which the library knows tokens shared."""
    first = None if x is None else x.to(dtype or x.dtype).contiguous()
    if x_k is x:
        return first, first
    return first, None if x_k is None else x_k.to(dtype or x_k.dtype).contiguous()
