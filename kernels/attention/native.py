"""rotary_attention by the native library, on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from reserve_kernels import native
from reserve_kernels.attention.packing import Packing
from reserve_kernels.native import Attention

DTYPES = {torch.float32: native.FLOAT32, torch.bfloat16: native.BFLOAT16}

LONGEST_WITHOUT_AVX2 = 64
"""With more tokens PyTorch's float32 products are faster than ours of SSE2 alone (docs/kernels/attention.md)."""


def slower_than_sdpa(dtype: torch.dtype, max_seqlen: int) -> str | None:
    """Why `auto` leaves a call to PyTorch's kernel on this processor, or None."""
    if dtype != torch.float32 or native.has_avx2() or max_seqlen <= LONGEST_WITHOUT_AVX2:
        return None
    return f"without AVX2 it is slower than sdpa above {LONGEST_WITHOUT_AVX2} tokens"


def attention_native(
    qkv: torch.Tensor, packing: Packing, run: Callable[[Attention], None] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """qkv [tokens, 3, heads, 64] -> (out [tokens, heads, 64], lse [tokens, heads], float32).

    `run` replaces the library's own choice of threads and instructions, for tests.
    """
    tokens, _, heads, size = qkv.shape
    out, lse = qkv.new_empty(tokens, heads, size), qkv.new_empty(tokens, heads, dtype=torch.float32)
    _run(run, qkv, packing, out, lse)
    return out, lse


def attention_native_backward(
    grad: torch.Tensor,
    qkv: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    packing: Packing,
    run: Callable[[Attention], None] | None = None,
) -> torch.Tensor:
    """The gradient of `qkv`, given that of `out` and what the forward returned. `run` is that of `attention_native`."""
    grad_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    _run(run, qkv, packing, out.contiguous(), lse.contiguous(), grad.contiguous(), grad_qkv)
    return grad_qkv


def _run(
    run: Callable[[Attention], None] | None,
    qkv: torch.Tensor,
    packing: Packing,
    out: torch.Tensor,
    lse: torch.Tensor,
    grad: torch.Tensor | None = None,
    grad_qkv: torch.Tensor | None = None,
) -> None:
    # The names keep the memory alive that the pointers are to.
    qkv, cu_seqlens = qkv.contiguous(), packing.cu_seqlens.contiguous()
    angles = None if packing.angles is None else packing.angles.float().contiguous()
    segment_ids = None if packing.segment_ids is None else packing.segment_ids.contiguous()
    tensors = (qkv, cu_seqlens, angles, segment_ids, grad, out, lse, grad_qkv)
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    sizes = qkv.shape[0], cu_seqlens.shape[0] - 1, qkv.shape[2]
    problem = Attention(*pointers, *sizes, packing.scale, native.ROTARY[packing.rotary], DTYPES[qkv.dtype])
    if run is None:
        native.library().attention_cpu(problem, torch.get_num_threads())
    else:
        run(problem)
