"""How packed tokens form sequences, and the checks of it that need not wait for a GPU."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch


class Packing(NamedTuple):
    """What every back end takes beside qkv. `rotary_attention` documents these arguments."""

    cu_seqlens: torch.Tensor
    max_seqlen: int
    angles: torch.Tensor | None
    segment_ids: torch.Tensor | None
    rotary: str
    scale: float

    def crossed(self) -> CrossPacking:
        """The same with keys that are the queries' tokens."""
        starts, longest, angles, ids, rotary, scale = self
        return CrossPacking(starts, longest, starts, longest, angles, angles, ids, ids, rotary, scale)


class CrossPacking(NamedTuple):
    """What every back end takes beside queries, and keys and values of other tokens."""

    cu_seqlens: torch.Tensor
    max_seqlen: int
    cu_seqlens_k: torch.Tensor
    max_seqlen_k: int
    angles: torch.Tensor | None
    angles_k: torch.Tensor | None
    segment_ids: torch.Tensor | None
    segment_ids_k: torch.Tensor | None
    rotary: str
    scale: float


def check_packing(qkv: torch.Tensor, packing: Packing) -> None:
    """Raises ValueError if `packing` does not fit `qkv` [tokens, ...].

    On a GPU it checks shapes only: reading the values would make the host wait.
    """
    _check_starts(qkv, packing.cu_seqlens, packing.max_seqlen, "qkv", "")


def check_cross_packing(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> None:
    """The same for queries `q` [tokens, ...], and keys and values `kv` [tokens_k, ...]."""
    _check_starts(q, packing.cu_seqlens, packing.max_seqlen, "qkv", "")
    _check_starts(kv, packing.cu_seqlens_k, packing.max_seqlen_k, "kv", "_k")


def _check_starts(of: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, name: str, suffix: str) -> None:
    tokens, sequences = of.shape[0], cu_seqlens.shape[0] - 1
    if tokens > sequences * max_seqlen:
        raise ValueError(
            f"max_seqlen{suffix} must be at least the longest of {sequences} sequences, which have {tokens} tokens "
            f"together; got {max_seqlen}"
        )
    if cu_seqlens.device.type != "cpu":
        return
    starts = cu_seqlens.tolist()
    if starts[0] != 0 or starts[-1] != tokens:
        raise ValueError(
            f"cu_seqlens{suffix} must go from 0 to {tokens}, {name}'s tokens; got {starts[0]} to {starts[-1]}"
        )
    for sequence, (start, end) in enumerate(pairwise(starts)):
        if end < start:
            raise ValueError(f"cu_seqlens{suffix} must not decrease; got {end} after {start} at sequence {sequence}")
        if end - start > max_seqlen:
            raise ValueError(
                f"max_seqlen{suffix} must be at least the longest sequence; sequence {sequence} has {end - start} "
                f"tokens; got {max_seqlen}"
            )
