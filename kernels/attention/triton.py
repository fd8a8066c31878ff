"""rotary_attention in Triton: picks kernels and tiles, and launches them.

The host decides by shapes and `max_seqlen` alone, so that nothing waits for the GPU and a CUDA graph can capture the
launches. A program that has no tokens to work on returns early.
"""

from __future__ import annotations

import functools
import math

import torch
import triton

from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.tiles import INTERPRETED, Chip, Tile, pick
from reserve_kernels.attention.triton_blocks import ROTARY
from reserve_kernels.attention.triton_long import dkv_kernel, dq_kernel, forward_kernel
from reserve_kernels.attention.triton_placing import on_device, placed_by_table, readable, rotary_table, widths
from reserve_kernels.attention.triton_short import MOST_IN_A_TILE, short_backward_kernel, short_forward_kernel

LARGEST_OFFSET = 2**31 - 1
"""Most elements of one sequence in qkv: within a sequence the kernels use 32-bit offsets."""


class _Launch:
    """State that the launches of one call share."""

    def __init__(self, qkv: torch.Tensor, packing: Packing, tiles: dict[str, Tile] | None) -> None:
        cu_seqlens, max_seqlen, self.angles, segment_ids, self.rotary, scale = packing
        self.qkv = readable(qkv)
        self.tokens, _, self.heads, self.size = qkv.shape
        self.sequences = cu_seqlens.shape[0] - 1
        # No sequence is longer than all tokens, whatever bound the caller passes.
        self.max_seqlen = min(max_seqlen, self.tokens)
        longest = LARGEST_OFFSET // (3 * self.size * max(self.heads, 1))
        if self.max_seqlen > longest:
            raise ValueError(
                f"max_seqlen must be at most {longest} with {self.heads} heads in backend 'triton'; got {max_seqlen}"
            )
        self.cu_seqlens = cu_seqlens.contiguous()
        # Without segment ids the kernels take some pointer that they do not read.
        self.segment_ids = self.cu_seqlens if segment_ids is None else segment_ids.contiguous()
        position = None if self.angles is None else self.rotary
        self.constants = {"ROTARY": ROTARY[position], "SEGMENTS": segment_ids is not None}
        self.scale = scale
        self.scale_log2 = scale * math.log2(math.e)
        if tiles is None:
            # The kernels of short sequences have 64 numbers a head, and split them where 16 angles end.
            shares = self.size == 64 and (self.angles is None or self.angles.shape[1] == 16)
            chip, has_segments = _chip(qkv.device), segment_ids is not None
            tiles = pick(chip, self.max_seqlen, segments=has_segments, size=self.size, shares=shares)
        self.tiles = tiles
        self.nothing = min(self.tokens, self.heads, self.sequences, self.max_seqlen) == 0
        self.device = on_device(qkv)

    def position(self) -> dict[str, int]:
        """The constants of the kernels that take gradients back through the position."""
        return {"ROTARY": self.constants["ROTARY"], "R": 0 if self.angles is None else self.angles.shape[1]}

    def table(self) -> torch.Tensor:
        """Sines and cosines of the angles; without a position a pointer that is not read."""
        return self.qkv if self.angles is None else rotary_table(self.angles, self.rotary)

    def placed(self, table: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Queries and keys with the position applied, and the number of parts of a row: [tokens, 2, heads, size], 2.

        Without a position they are those of qkv, of 3 parts. The backward pass makes them again: that takes a seventh
        of it on an H100, and keeping them would take two thirds of qkv's memory (docs/kernels/step.md).
        """
        if self.angles is None:
            return self.qkv, 3
        return placed_by_table(self.qkv, table, self.rotary), 2

    def short(self, kernel, tile: Tile, *arguments) -> None:
        """Launches a kernel of triton_short.py, a program for each head of as many sequences as fit a tile."""
        group = min(tile.queries // self.max_seqlen, MOST_IN_A_TILE)
        kernel[(triton.cdiv(self.sequences, group) * self.heads,)](
            *arguments, self.heads, self.tokens, self.sequences, group,
            B=tile.queries, MOST=MOST_IN_A_TILE, **self.constants, **_options(tile),
        )  # fmt: skip

    def long(self, kernel, tile: Tile, block: int, parts: int, *arguments, **constants: int) -> None:
        """Launches a kernel of triton_long.py, a program for each block of `block` tokens a sequence can have."""
        blocks = triton.cdiv(self.max_seqlen, block)
        kernel[(blocks * self.heads * self.sequences,)](
            *arguments, self.heads, self.tokens, blocks,
            BM=tile.queries, BN=tile.keys, PARTS=parts, SEGMENTS=self.constants["SEGMENTS"], **constants,
            **widths(self.size), **_options(tile),
        )  # fmt: skip


def attention_triton(
    qkv: torch.Tensor, packing: Packing, tiles: dict[str, Tile] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """qkv [tokens, 3, heads, size] -> (out [tokens, heads, size], lse [heads, tokens] in float32).

    `tiles`, which the tuner passes, overrides the tiles that `tiles.pick` chooses.
    """
    launch = _Launch(qkv, packing, tiles)
    out = qkv.new_empty(launch.tokens, launch.heads, launch.size)
    lse = qkv.new_empty(launch.heads, launch.tokens, dtype=torch.float32)
    if launch.nothing:
        return out, lse
    with launch.device:
        table = launch.table()
        arguments = (launch.cu_seqlens, launch.segment_ids, out, lse, launch.scale_log2)
        tile = launch.tiles.get("forward")
        if tile is not None:
            placed, parts = launch.placed(table)
            launch.long(forward_kernel, tile, tile.queries, parts, placed, launch.qkv, *arguments)
        else:
            launch.short(short_forward_kernel, launch.tiles["short_forward"], launch.qkv, table, *arguments)
    return out, lse


def attention_triton_backward(
    grad: torch.Tensor,
    qkv: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    packing: Packing,
    tiles: dict[str, Tile] | None = None,
) -> torch.Tensor:
    """The gradient of `qkv` from that of `out` and what the forward returned; `tiles` as in `attention_triton`."""
    launch = _Launch(qkv, packing, tiles)
    grad_qkv = torch.empty_like(launch.qkv)
    if launch.nothing:
        return grad_qkv
    grad = readable(grad)
    with launch.device:
        table = launch.table()
        inputs = (launch.cu_seqlens, launch.segment_ids, grad_qkv)
        scales = (launch.scale_log2, launch.scale)
        tiles = launch.tiles
        if "dq" in tiles:
            delta = torch.empty_like(lse)
            dq, dkv, position = tiles["dq"], tiles["dkv"], launch.position()
            placed, parts = launch.placed(table)
            first = (grad, placed, launch.qkv, out, lse, table)
            launch.long(dq_kernel, dq, dq.queries, parts, *first, *inputs, delta, *scales, **position)
            second = (grad, placed, launch.qkv, lse, delta, table)
            launch.long(dkv_kernel, dkv, dkv.keys, parts, *second, *inputs, *scales, **position)
        else:
            tile = tiles["short_backward"]
            launch.short(short_backward_kernel, tile, grad, launch.qkv, lse, table, *inputs, *scales)
    return grad_qkv


def _options(tile: Tile) -> dict[str, object]:
    return {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}


@functools.cache
def _chip(device: torch.device) -> Chip:
    if device.type != "cuda":
        return INTERPRETED
    properties = torch.cuda.get_device_properties(device)
    return Chip(10 * properties.major + properties.minor, properties.name)
