"""The checks of rotary_attention's arguments. Each error names the argument, what it was and what is allowed."""

from __future__ import annotations

import math

import numpy as np
import torch

from reserve_kernels.checks import FLOATING, check_same_device, check_tensor

HEAD_SIZES = (32, 64, 96, 128)


def check_qkv(qkv: torch.Tensor) -> None:
    """Raises TypeError or ValueError unless `qkv` is [tokens, 3, heads, size]."""
    check_tensor("qkv", qkv, FLOATING)
    if qkv.dim() != 4 or qkv.shape[1] != 3 or qkv.shape[3] not in HEAD_SIZES:
        raise ValueError(f"qkv must be [tokens, 3, heads, {_sizes()}]; got shape {tuple(qkv.shape)}")


def check_q_and_kv(q: torch.Tensor, kv: torch.Tensor) -> None:
    """The same for queries [tokens, heads, size], and keys and values [tokens_k, 2, kv_heads, size]."""
    check_tensor("qkv", q, FLOATING)
    if q.dim() != 3 or q.shape[2] not in HEAD_SIZES:
        raise ValueError(f"qkv must be queries [tokens, heads, {_sizes()}] with kv; got shape {tuple(q.shape)}")
    check_tensor("kv", kv, FLOATING)
    check_same_device("kv", kv, "qkv", q)
    if kv.dim() != 4 or kv.shape[1] != 2 or kv.shape[3] != q.shape[2]:
        raise ValueError(f"kv must be [tokens, 2, heads, {q.shape[2]}], as qkv's heads; got shape {tuple(kv.shape)}")
    heads, kv_heads = q.shape[1], kv.shape[2]
    if kv_heads > heads or (heads > 0 and (kv_heads == 0 or heads % kv_heads != 0)):
        raise ValueError(f"kv must have a number of heads that divides qkv's {heads}; got {kv_heads}")


def check_same_dtype(q: torch.Tensor, kv: torch.Tensor) -> None:
    """Raises TypeError unless both have one dtype."""
    if q.dtype != kv.dtype:
        raise TypeError(f"kv must have qkv's dtype {_name(q.dtype)}; got {_name(kv.dtype)}")


def check_sequences(name: str, cu_seqlens: torch.Tensor, longest_name: str, max_seqlen: int, of: torch.Tensor) -> None:
    """Raises TypeError or ValueError unless these can describe sequences on the device of `of`, qkv."""
    check_tensor(name, cu_seqlens, (torch.int32,))
    check_same_device(name, cu_seqlens, "qkv", of)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        raise ValueError(f"{name} must be [sequences + 1]; got shape {tuple(cu_seqlens.shape)}")
    if isinstance(max_seqlen, bool) or not isinstance(max_seqlen, (int, np.integer, torch.SymInt)):
        raise TypeError(f"{longest_name} must be an int; got {type(max_seqlen).__name__}")
    if max_seqlen < 0:
        raise ValueError(f"{longest_name} must be at least 0; got {max_seqlen}")


def check_rotary(rotary: str) -> None:
    """Raises ValueError unless `rotary` is a form of the position."""
    if rotary not in ("reserve", "standard"):
        raise ValueError(f"rotary must be 'reserve' or 'standard'; got {rotary!r}")


def check_angles(name: str, angles: torch.Tensor, of_name: str, of: torch.Tensor) -> None:
    """Raises TypeError or ValueError unless `angles` fit the tokens and the head size of `of`."""
    check_tensor(name, angles, (torch.float32, torch.float64))
    check_same_device(name, angles, of_name, of)
    tokens, most = of.shape[0], of.shape[-1] // 2
    if angles.dim() != 2 or angles.shape[0] != tokens or not 1 <= angles.shape[1] <= most:
        raise ValueError(
            f"{name} must be [{tokens}, 1 to {most}] ({of_name} has {tokens} tokens and heads of {of.shape[-1]}); got "
            f"{tuple(angles.shape)}"
        )


def check_segment_ids(name: str, segment_ids: torch.Tensor, of_name: str, of: torch.Tensor) -> None:
    """Raises TypeError or ValueError unless there is an id for each token of `of`."""
    check_tensor(name, segment_ids, (torch.int32,))
    check_same_device(name, segment_ids, of_name, of)
    if tuple(segment_ids.shape) != (of.shape[0],):
        raise ValueError(
            f"{name} must be {[of.shape[0]]} ({of_name} has {of.shape[0]} tokens); got {tuple(segment_ids.shape)}"
        )


def of_keys(
    name: str, value: torch.Tensor | None, own: torch.Tensor | None, shares_lengths: bool
) -> torch.Tensor | None:
    """The argument `name`_k, which is `own`, or `value`, that of the queries, where keys have the queries' lengths.

    Raises ValueError if one is missing.
    """
    if own is not None and value is None:
        raise ValueError(f"{name}_k needs {name}, that of the queries; got None")
    if own is None and value is not None and not shares_lengths:
        raise ValueError(f"{name} needs {name}_k where keys have a cu_seqlens_k of their own; got None")
    return value if own is None else own


def checked_scale(scale: float | None, head_size: int) -> float:
    """`scale` as a float, by default 1 / sqrt(head_size). Raises TypeError or ValueError if it cannot be one."""
    if scale is None:
        return float(head_size**-0.5)
    if isinstance(scale, torch.Tensor):
        raise TypeError("scale must be a number: a tensor could make the host wait for a GPU; got Tensor")
    if not isinstance(scale, (int, float, np.number, torch.SymInt, torch.SymFloat)):
        raise TypeError(f"scale must be a number; got {type(scale).__name__}")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite; got {scale}")
    return float(scale)


def _sizes() -> str:
    return " or ".join((", ".join(map(str, HEAD_SIZES[:-1])), str(HEAD_SIZES[-1])))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
