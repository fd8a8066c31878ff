"""The kernels of contrastive_loss as kernels/contrastive/triton.py launches them, for vectors of length 768."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from triton_report import Case

from reserve_kernels.contrastive.triton import SCALE_CONSTANTS, SCALE_WARPS, tiles
from reserve_kernels.contrastive.triton_kernels import (
    logsumexp_kernel,
    scale_backward_kernel,
    scale_kernel,
    weights_kernel,
)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SIZES = dict.fromkeys(("first", "n", "m", "dim", "stride"), "i32")
FLOATS = ("row_parts", "column_parts", "diagonal", "row_grad", "row_lse", "column_grad", "column_lse", "diagonal_grad")


def cases(architecture: int) -> Iterator[Case]:
    for name, dtype in DTYPES.items():
        types = dict.fromkeys(("x", "y", "a", "b", "out", "grad", "grad_x", "weights"), f"*{name}") | SIZES
        types |= dict.fromkeys((*FLOATS, "factor", "log_scale", "shares"), "*fp32")
        quick = name == "bf16"
        for kernel in (scale_kernel, scale_backward_kernel):
            yield Case(
                f"{kernel.__name__} {name}",
                kernel,
                types,
                SCALE_CONSTANTS,
                SCALE_WARPS,
                num_stages=3,
                divisible=frozenset({"dim"}),
                tensor_core="none",
                quick=quick,
            )
        tile = tiles(dtype, architecture)
        for dim in (768, 1000):
            for kernel, flags in [
                (logsumexp_kernel, {"BOTH": True}),
                (logsumexp_kernel, {"BOTH": False}),
                (weights_kernel, {"BY_ROW": True, "BY_COLUMN": True}),
                (weights_kernel, {"BY_ROW": True, "BY_COLUMN": False}),
                (weights_kernel, {"BY_ROW": False, "BY_COLUMN": True}),
            ]:
                asked = " ".join(flag for flag, value in flags.items() if value)
                yield Case(
                    f"{kernel.__name__} {name} dim {dim} {asked}".rstrip(),
                    kernel,
                    types,
                    flags | tile.constants(dim),
                    tile.num_warps,
                    tile.num_stages,
                    divisible=frozenset({"n", "m", "stride", *(["dim"] if dim % 16 == 0 else [])}),
                    tensor_core="none" if name == "fp32" else "best",
                    quick=quick and dim == 768,
                )
