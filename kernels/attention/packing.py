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


def check_packing(qkv: torch.Tensor, packing: Packing) -> None:
    """Raises ValueError if `packing` does not fit `qkv` [tokens, ...].

    On a GPU it checks shapes only: reading the values would make the host wait.
    """
    cu_seqlens, max_seqlen = packing.cu_seqlens, packing.max_seqlen
    tokens, sequences = qkv.shape[0], cu_seqlens.shape[0] - 1
    if tokens > sequences * max_seqlen:
        raise ValueError(
            f"max_seqlen must be at least the longest of {sequences} sequences, which have {tokens} tokens together; "
            f"got {max_seqlen}"
        )
    if cu_seqlens.device.type != "cpu":
        return
    starts = cu_seqlens.tolist()
    if starts[0] != 0 or starts[-1] != tokens:
        raise ValueError(f"cu_seqlens must go from 0 to {tokens}, qkv's tokens; got {starts[0]} to {starts[-1]}")
    for sequence, (start, end) in enumerate(pairwise(starts)):
        if end < start:
            raise ValueError(f"cu_seqlens must not decrease; got {end} after {start} at sequence {sequence}")
        if end - start > max_seqlen:
            raise ValueError(
                f"max_seqlen must be at least the longest sequence; sequence {sequence} has {end - start} tokens; "
                f"got {max_seqlen}"
            )
