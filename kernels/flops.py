"""Importing this module makes PyTorch's FlopCounterMode count the ops of this package.

    >>> import torch
    >>> import reserve_kernels.flops
    >>> from torch.utils.flop_counter import FlopCounterMode
    >>> with FlopCounterMode(display=False) as counter:
    ...     loss = reserve_kernels.contrastive_loss(torch.ones(2, 8), torch.ones(2, 8), 1.0)
    >>> counter.get_total_flops()
    64

It is not imported by `reserve_kernels`, since PyTorch's counter imports Triton. Import it before the counter is made,
which copies the table of formulas.

Only matrix products count, as in PyTorch's own formulas. So bias_quick_gelu, log_mel_spectrogram (a Fourier transform)
and BF16AdamW have no formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.utils.flop_counter import register_flop_formula

import reserve_kernels.attention.ops
import reserve_kernels.contrastive.ops  # noqa: F401  (both define the ops)

ops = torch.ops.reserve_kernels


def _pairs(qkv: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, segment_ids: torch.Tensor | None) -> Any:
    """Pairs of tokens that attend to each other, summed over the sequences; an upper bound where there are no values.

    On a GPU the host waits for the values.
    """
    if isinstance(cu_seqlens, FakeTensor | FunctionalTensor) or cu_seqlens.is_meta:
        return qkv.shape[0] * max_seqlen
    lengths = cu_seqlens.diff().long()
    if segment_ids is not None:
        sequence = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        lengths = torch.stack((sequence, segment_ids.long())).unique(dim=1, return_counts=True)[1]
    return int(lengths.square().sum())


@register_flop_formula(ops.rotary_attention, get_raw=True)
def rotary_attention_flops(
    qkv: Any, cu_seqlens: Any, max_seqlen: int, angles: Any, segment_ids: Any, *_settings: Any, **_out: Any
) -> Any:
    """Two products: the scores, and their weights times the values."""
    _, _, heads, size = qkv.shape
    return 2 * 2 * heads * size * _pairs(qkv, cu_seqlens, max_seqlen, segment_ids)


@register_flop_formula(ops.rotary_attention_backward, get_raw=True)
def rotary_attention_backward_flops(
    grad: Any,
    qkv: Any,
    out: Any,
    lse: Any,
    cu_seqlens: Any,
    max_seqlen: int,
    angles: Any,
    segment_ids: Any,
    *_settings: Any,
    **_out: Any,
) -> Any:
    """Five products: the scores once more, and the gradients of weights, values, queries and keys."""
    _, _, heads, size = qkv.shape
    return 5 * 2 * heads * size * _pairs(qkv, cu_seqlens, max_seqlen, segment_ids)


def _logits(x_shape: Any, y_shape: Any) -> Any:
    return 2 * x_shape[0] * y_shape[0] * x_shape[1]


@register_flop_formula(ops.contrastive_logsumexp)
def contrastive_logsumexp_flops(x_shape: Any, y_shape: Any, *_settings: Any, **_out: Any) -> Any:
    """One product: the logits."""
    return _logits(x_shape, y_shape)


@register_flop_formula(ops.contrastive_logsumexp_backward)
def contrastive_logsumexp_backward_flops(
    grad_rows: Any, grad_columns: Any, grad_diagonal: Any, x_shape: Any, y_shape: Any, *_rest: Any, **_out: Any
) -> Any:
    """Two products, the gradients of x and y. The logits, which a dense loss keeps, are not counted again."""
    return 2 * _logits(x_shape, y_shape)
