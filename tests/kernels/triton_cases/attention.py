"""Everything that rotary_attention's launcher can pick."""

from __future__ import annotations

from collections.abc import Iterator

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


def cases(architecture: int) -> Iterator[Case]:
    for rotary in ("reserve", "standard"):
        constants = {"ROTARY": POSITIONS[rotary], "BLOCK": triton_placing.BLOCK}
        types = {"angles": "*fp32", "table": "*fp32", "tokens": "i32"}
        name = f"rotary_table, {rotary}"
        yield Case(name, triton_blocks.rotary_table_kernel, types, constants, 4, 1, tensor_core="none", quick=True)
        for dtype in ("bf16", "fp16"):
            pointers = ("qkv", "placed", "grad_q", "grad_k", "grad_v", "grad_qkv")
            types = dict.fromkeys(pointers, f"*{dtype}") | {"table": "*fp32", "tokens": "i32", "heads": "i32"}
            quick = (rotary, dtype) == ("reserve", "bf16")
            for what, kernel in (("place", triton_blocks.place_kernel), ("unplace", triton_blocks.unplace_kernel)):
                yield Case(
                    f"{what}, {dtype}, {rotary}", kernel, types, constants, 4, 1, tensor_core="none", quick=quick
                )
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


def _case(kernel: str, tile: tiles.Tile, dtype: str, rotary: str, segments: bool, quick: bool) -> Case:
    constants = {"SEGMENTS": segments} | ({} if kernel == "forward" else {"ROTARY": POSITIONS[rotary]})
    if kernel in tiles.SHARED:
        constants |= {"B": tile.queries, "MOST": triton_short.MOST_IN_A_TILE}
    else:
        constants |= {"BM": tile.queries, "BN": tile.keys, "PARTS": 3 if rotary == "no position" else 2}
    types = {
        **dict.fromkeys(("grad", "qkv", "placed", "out", "grad_qkv"), f"*{dtype}"),
        **dict.fromkeys(("lse", "delta"), "*fp32"),
        # Without a position the table is a pointer that is not read: that of qkv.
        "table": "*fp32" if POSITIONS[rotary] else f"*{dtype}",
        **dict.fromkeys(("cu_seqlens", "segment_ids"), "*i32"),
        **dict.fromkeys(("scale", "scale_log2"), "fp32"),
        **dict.fromkeys(("heads", "tokens", "blocks", "sequences", "group"), "i32"),
    }
    shape = f"{tile.queries}x{tile.keys}, {tile.warps} warps, {tile.stages} stages"
    name = f"{kernel}, {shape}, {dtype}, {rotary}{', segments' if segments else ''}"
    unaligned = frozenset(triton_blocks.UNALIGNED)
    return Case(name, KERNELS[kernel], types, constants, tile.warps, tile.stages, unaligned, quick=quick)
