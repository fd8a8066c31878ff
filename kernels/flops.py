"""Makes PyTorch's FlopCounterMode count the ops of this package.

    >>> import torch
    >>> import reserve_kernels
    >>> from torch.utils.flop_counter import FlopCounterMode
    >>> with FlopCounterMode(display=False) as counter:
    ...     loss = reserve_kernels.contrastive_loss(torch.ones(2, 8), torch.ones(2, 8), 1.0)
    >>> counter.get_total_flops()
    64

Only matrix products count, as in PyTorch's own formulas. So bias_quick_gelu and BF16AdamW count as 0, like PyTorch's
activations and optimisers, and log_mel_spectrogram counts the product with its filters, not the Fourier transform.
A ring of contrastive_loss is no op of its own: PyTorch counts the products that it makes, four a block of logits. All
other ways count three, those that are needed, whether or not logits are computed again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch

import reserve_kernels.attention.cross_ops
import reserve_kernels.attention.ops
import reserve_kernels.contrastive.ops
import reserve_kernels.contrastive.sigmoid_ops
import reserve_kernels.log_mel.ops  # noqa: F401  (they define the ops)
from reserve_kernels.checks import has_values
from reserve_kernels.log_mel.settings import LogMelSettings

COUNTER = "torch.utils.flop_counter"


def register_when_counting() -> None:
    """Registers the formulas now if PyTorch's counter is loaded, otherwise once it is.

    Loading it imports Triton, which takes longer than all of this package. A counter copies the table of formulas when
    it is made, so it is too late to register them when an op is called.
    """
    if COUNTER in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _RegisterAfterImport())


class _RegisterAfterImport(MetaPathFinder):
    """Lets the import of PyTorch's counter be followed by the registration. Finds nothing else."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != COUNTER:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    from torch.utils.flop_counter import register_flop_formula

    ops = torch.ops.reserve_kernels
    formulas: dict[Any, Callable[..., Any]] = {
        ops.rotary_attention: _attention,
        ops.rotary_attention_backward: _attention_backward,
        ops.rotary_cross_attention: _cross_attention,
        ops.rotary_cross_attention_backward: _cross_attention_backward,
        ops.contrastive_logsumexp: _logsumexp,
        ops.contrastive_logsumexp_backward: _logsumexp_backward,
        ops.contrastive_sigmoid: _sigmoid,
        ops.contrastive_sigmoid_backward: _sigmoid_backward,
        ops.log_mel_spectrogram: _log_mel,
        ops.log_mel_spectrogram_backward: _log_mel_backward,
    }
    for op, formula in formulas.items():
        register_flop_formula(op, get_raw=True)(formula)


def _pairs(qkv: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, segment_ids: torch.Tensor | None) -> Any:
    """Pairs of tokens that attend to each other, summed over the sequences; an upper bound where there are no values.

    On a GPU the host waits for the values.
    """
    if not has_values(cu_seqlens):
        return qkv.shape[0] * max_seqlen
    lengths = cu_seqlens.diff().long()
    if segment_ids is not None:
        sequence = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        lengths = torch.stack((sequence, segment_ids.long())).unique(dim=1, return_counts=True)[1]
    return int(lengths.square().sum())


def _attention(
    qkv: Any, cu_seqlens: Any, max_seqlen: int, angles: Any, segment_ids: Any, *_settings: Any, **_out: Any
) -> Any:
    """Two products: the scores, and their weights times the values."""
    _, _, heads, size = qkv.shape
    return 2 * 2 * heads * size * _pairs(qkv, cu_seqlens, max_seqlen, segment_ids)


def _attention_backward(
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


def _cross_pairs(
    q: torch.Tensor,
    kv: torch.Tensor,
    cu_seqlens: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_k: int,
    segment_ids: torch.Tensor | None,
    segment_ids_k: torch.Tensor | None,
) -> Any:
    """The same of queries and keys that are different tokens."""
    if not has_values(cu_seqlens):
        return q.shape[0] * max_seqlen_k
    lengths, lengths_k = cu_seqlens.diff().long(), cu_seqlens_k.diff().long()
    if segment_ids is None or segment_ids_k is None:
        return int((lengths * lengths_k).sum())
    groups = [
        torch.stack((torch.arange(len(n), device=n.device).repeat_interleave(n), ids.long()), 1)
        for n, ids in ((lengths, segment_ids), (lengths_k, segment_ids_k))
    ]
    _, group = torch.cat(groups).unique(dim=0, return_inverse=True)
    of_queries, of_keys = group.split([q.shape[0], kv.shape[0]])
    counts = [of.bincount(minlength=len(group)) for of in (of_queries, of_keys)]
    return int((counts[0] * counts[1]).sum())


def _cross_attention(
    q: Any,
    kv: Any,
    cu_seqlens: Any,
    max_seqlen: int,
    cu_seqlens_k: Any,
    max_seqlen_k: int,
    angles: Any,
    angles_k: Any,
    segment_ids: Any,
    segment_ids_k: Any,
    *_settings: Any,
    **_out: Any,
) -> Any:
    """Two products, as `_attention`."""
    _, heads, size = q.shape
    pairs = _cross_pairs(q, kv, cu_seqlens, cu_seqlens_k, max_seqlen_k, segment_ids, segment_ids_k)
    return 2 * 2 * heads * size * pairs


def _cross_attention_backward(grad: Any, q: Any, kv: Any, out: Any, lse: Any, *arguments: Any, **_out: Any) -> Any:
    """Five products, as `_attention_backward`."""
    return _cross_attention(q, kv, *arguments) // 2 * 5


def _logits(x: Any, y: Any) -> Any:
    return 2 * x.shape[0] * y.shape[0] * x.shape[1]


def _logsumexp(x: Any, y: Any, *_settings: Any, **_out: Any) -> Any:
    """One product: the logits."""
    return _logits(x, y)


def _logsumexp_backward(
    grad_rows: Any, grad_columns: Any, grad_diagonal: Any, x: Any, y: Any, *_rest: Any, **_out: Any
) -> Any:
    """Two products, the gradients of x and y. The logits, which a dense loss keeps, are not counted again."""
    return 2 * _logits(x, y)


def _sigmoid(
    x: Any,
    y: Any,
    log_scale: Any,
    bias: Any,
    offsets: Any,
    columns: Any,
    weights: Any,
    paired: Any,
    by_column: Any,
    way: str,
    *_settings: Any,
    **_out: Any,
) -> Any:
    """The logits, and the gradients of x and y where they are made in the forward pass."""
    return (3 if way == "forward" else 1) * _logits(x, y)


def _sigmoid_backward(
    of_rows: Any,
    of_columns: Any,
    x: Any,
    y: Any,
    log_scale: Any,
    bias: Any,
    offsets: Any,
    columns: Any,
    weights: Any,
    stored_x: Any,
    stored_y: Any,
    stored_scalars: Any,
    of_total_alone: bool,
    *_settings: Any,
    **_out: Any,
) -> Any:
    """The gradients of x and y, unless they are there already. Logits that are computed again are not counted."""
    return 0 if of_total_alone else 2 * _logits(x, y)


def _filtered(frames: Any, n_fft: int, n_mels: int) -> Any:
    return 2 * frames * (n_fft // 2 + 1) * n_mels


def _log_mel(waveform: Any, integers: Any, numbers: Any, names: str, *_rest: Any, out_val: Any) -> Any:
    """One product: the power spectrum of each frame times the filters."""
    settings = LogMelSettings.unpacked(integers, numbers, names)
    frames = out_val.shape[-1] if settings.bands_first else out_val.shape[-2]
    return _filtered(out_val.shape[:-2].numel() * frames, settings.n_fft, settings.n_mels)


def _log_mel_backward(
    grad: Any,
    waveform: Any,
    window: Any,
    offsets: Any,
    integers: Any,
    numbers: Any,
    names: str,
    *_rest: Any,
    **_out: Any,
) -> Any:
    """One product, the gradient of the power spectrum."""
    return _log_mel(waveform, integers, numbers, names, out_val=grad)
