"""logsumexp of rows @ candidates.T a block of rows at a time: the logits of all pairs never exist at once."""

from __future__ import annotations

import torch

from reserve_kernels.contrastive.reference import statistics_dtype

BLOCK_BYTES = 8 << 20
"""Size of a block of logits."""


def _blocks(rows: torch.Tensor, candidates: torch.Tensor) -> int:
    """Rows in a block, so that its logits take about BLOCK_BYTES."""
    itemsize = statistics_dtype(rows.dtype).itemsize
    return max(16, BLOCK_BYTES // (itemsize * max(candidates.shape[0], 1)))


def row_logsumexp_chunked(rows: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """[n, dim], [m, dim] -> [n]: logsumexp over the candidates, float32 at least."""
    dtype = statistics_dtype(rows.dtype)
    wide = candidates.to(dtype)
    out = rows.new_empty(rows.shape[0], dtype=dtype)
    for start in range(0, rows.shape[0], block := _blocks(rows, candidates)):
        part = slice(start, start + block)
        torch.logsumexp(rows[part].to(dtype) @ wide.T, dim=-1, out=out[part])
    return out


def row_logsumexp_chunked_backward(
    grad: torch.Tensor, rows: torch.Tensor, candidates: torch.Tensor, lse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of rows and candidates; the logits are computed again, block by block."""
    dtype = statistics_dtype(rows.dtype)
    wide = candidates.to(dtype)
    grad_rows = torch.empty_like(rows, memory_format=torch.contiguous_format)
    grad_candidates = torch.zeros_like(wide, memory_format=torch.contiguous_format)
    for start in range(0, rows.shape[0], block := _blocks(rows, candidates)):
        part = slice(start, start + block)
        block_rows = rows[part].to(dtype)
        weights = (block_rows @ wide.T).sub_(lse[part, None]).exp_().mul_(grad[part, None].to(dtype))
        grad_rows[part] = weights @ wide
        grad_candidates.addmm_(weights.T, block_rows)
    return grad_rows, grad_candidates.to(candidates.dtype)
