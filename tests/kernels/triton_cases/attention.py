"""Everything that rotary_attention's launcher can pick."""

from __future__ import annotations

from collections.abc import Iterator

import triton

from reserve_kernels.attention import tiles, triton_blocks, triton_long, triton_placing, triton_short
from tests.kernels.triton_report import Case

KERNELS = {
    "short_forward": triton_short.short_forward_kernel,
    "short_backward": triton_short.short_backward_kernel,
    "forward": triton_long.forward_kernel,
    "dq": triton_long.dq_kernel,
    "dkv": triton_long.dkv_kernel,
}
POSITIONS = {"no position": 0, "reserve": 1, "standard": 2}


MODEL = (64, 16)
"""Head size and angles of the model's calls."""
OTHERS = ((64, 32), (32, 16), (96, 48), (128, 64))
"""Each other head size, and 64, with the most angles that it can have."""


def cases(architecture: int) -> Iterator[Case]:
    for shape in (MODEL, *OTHERS):
        yield from _placing(*shape)
    chips = tiles.family(architecture)
    picked = {choice for chosen in tiles.CHOSEN[chips].values() for choice in chosen.items()}
    for kernel, candidates in tiles.CANDIDATES[chips].items():
        for tile in candidates:
            # The forward kernel reads queries and keys to which either position has been applied.
            for rotary in ("no position", "reserve") if kernel == "forward" else POSITIONS:
                # With segment ids the tuner's choices do not count.
                for segments in (False, True) if (kernel, tile) in picked else (False,):
                    quick = (kernel, tile) in picked and rotary == "reserve" and not segments
                    yield _case(kernel, tile, "bf16", rotary, segments, quick)
            yield _case(kernel, tile, "fp16", "reserve", False, False)
    for shape in OTHERS:
        chosen = tiles.CHOSEN[chips]["medium"] if shape[0] == 64 else tiles.OTHER_SIZES[chips][shape[0]]
        for kernel, tile in chosen.items():
            for rotary in ("no position", "reserve") if kernel == "forward" else POSITIONS:
                yield _case(kernel, tile, "bf16", rotary, False, False, shape)
            yield _case(kernel, tile, "bf16", "reserve", True, False, shape)


def _placing(size: int, angles: int) -> Iterator[Case]:
    of_shape = _named(size, angles)
    for rotary in ("reserve", "standard"):
        constants = {"ROTARY": POSITIONS[rotary], "BLOCK": triton_placing.BLOCK, "R": angles}
        types = {"angles": "*fp32", "table": "*fp32", "tokens": "i32"}
        if of_shape == "" or size == 96:
            wide = constants | {"WIDE": triton.next_power_of_2(angles)}
            kernel = triton_blocks.rotary_table_kernel
            quick = size == 64
            yield Case(f"rotary_table, {rotary}{of_shape}", kernel, types, wide, 4, 1, tensor_core="none", quick=quick)
        constants |= triton_placing.widths(size)
        for dtype in ("bf16", "fp16") if of_shape == "" else ("bf16",):
            pointers = ("qkv", "x", "placed", "grad_q", "grad_k", "grad_v", "grad_qkv")
            types = dict.fromkeys(pointers, f"*{dtype}") | {"table": "*fp32"}
            types |= dict.fromkeys(("tokens", "heads", "stride"), "i32")
            quick = (rotary, dtype, size) == ("reserve", "bf16", 64)
            for what, kernel in (("place", triton_blocks.place_kernel), ("unplace", triton_blocks.unplace_kernel)):
                name = f"{what}, {dtype}, {rotary}{of_shape}"
                yield Case(name, kernel, types, constants, 4, 1, tensor_core="none", quick=quick)
            name, kernel = f"place_rows, {dtype}, {rotary}{of_shape}", triton_blocks.place_rows_kernel
            turned = constants | {"TRANSPOSE": True}
            yield Case(name, kernel, types, turned, 4, 1, tensor_core="none", quick=False)


def _named(size: int, angles: int) -> str:
    return "" if (size, angles) == MODEL else f", heads of {size}, {angles} angles"


def _case(
    kernel: str,
    tile: tiles.Tile,
    dtype: str,
    rotary: str,
    segments: bool,
    quick: bool,
    shape: tuple[int, int] = MODEL,
) -> Case:
    size, angles = shape
    constants = {"SEGMENTS": segments} | ({} if kernel == "forward" else {"ROTARY": POSITIONS[rotary]})
    if kernel in tiles.SHARED:
        constants |= {"B": tile.queries, "MOST": triton_short.MOST_IN_A_TILE}
    else:
        constants |= {"BM": tile.queries, "BN": tile.keys, "PARTS": 3 if rotary == "no position" else 2}
        constants |= triton_placing.widths(size)
        constants |= {} if kernel == "forward" else {"R": angles if POSITIONS[rotary] else 0}
    types = {
        **dict.fromkeys(("grad", "qkv", "placed", "out", "grad_qkv"), f"*{dtype}"),
        **dict.fromkeys(("lse", "delta"), "*fp32"),
        # Without a position the table is a pointer that is not read: that of qkv.
        "table": "*fp32" if POSITIONS[rotary] else f"*{dtype}",
        **dict.fromkeys(("cu_seqlens", "segment_ids"), "*i32"),
        **dict.fromkeys(("scale", "scale_log2"), "fp32"),
        **dict.fromkeys(("heads", "tokens", "blocks", "sequences", "group"), "i32"),
    }
    tiled = f"{tile.queries}x{tile.keys}, {tile.warps} warps, {tile.stages} stages"
    name = f"{kernel}, {tiled}, {dtype}, {rotary}{', segments' if segments else ''}{_named(*shape)}"
    unaligned = frozenset(triton_blocks.UNALIGNED)
    return Case(name, KERNELS[kernel], types, constants, tile.warps, tile.stages, unaligned, quick=quick)
