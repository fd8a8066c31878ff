"""The kernels of contrastive_loss as kernels/contrastive/triton.py launches them.

Scaled vectors have whole blocks of elements and the numbers of rows are never specialised, so that the tiles of logits
have one kernel for all sizes. A dimension of 1 is a constant.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from reserve_kernels.contrastive.triton import SCALE_CONSTANTS, SCALE_WARPS, tiles
from reserve_kernels.contrastive.triton_kernels import (
    logsumexp_kernel,
    scale_backward_kernel,
    scale_kernel,
    weights_kernel,
)
from tests.kernels.triton_report import Case

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SIZES = dict.fromkeys(("first", "n", "m", "dim", "width", "stride"), "i32")
FLOATS = ("row_parts", "column_parts", "diagonal", "row_grad", "row_lse", "column_grad", "column_lse", "diagonal_grad")


def cases(architecture: int) -> Iterator[Case]:
    for name, dtype in DTYPES.items():
        types = dict.fromkeys(("x", "y", "a", "b", "out", "grad", "grad_x", "weights"), f"*{name}") | SIZES
        types |= dict.fromkeys((*FLOATS, "grad_unit", "log_scale", "shares"), "*fp32")
        quick = name == "bf16"
        for kernel in (scale_kernel, scale_backward_kernel):
            # The gradient of scaled vectors is a sum in float32.
            of_kernel = types | ({"grad": "*fp32"} if kernel is scale_backward_kernel else {})
            for what, constants, divisible in [
                ("", {}, {"dim", "width"}),
                (" odd dim", {}, {"width"}),
                (" dim 1", {"dim": 1}, {"width"}),
            ]:
                yield Case(
                    f"{kernel.__name__} {name}{what}",
                    kernel,
                    of_kernel,
                    SCALE_CONSTANTS | constants,
                    SCALE_WARPS,
                    num_stages=3,
                    divisible=frozenset(divisible),
                    tensor_core="none",
                    quick=quick and not what,
                )
        tile = tiles(dtype, architecture)
        for kernel, flags in [
            (logsumexp_kernel, {"BOTH": True}),
            (logsumexp_kernel, {"BOTH": False}),
            (weights_kernel, {"BY_ROW": True, "BY_COLUMN": True}),
            (weights_kernel, {"BY_ROW": True, "BY_COLUMN": False}),
            (weights_kernel, {"BY_ROW": False, "BY_COLUMN": True}),
        ]:
            set_flags = " ".join(flag for flag, value in flags.items() if value)
            yield Case(
                f"{kernel.__name__} {name} {set_flags}".rstrip(),
                kernel,
                types,
                flags | tile.constants(),
                tile.num_warps,
                tile.num_stages,
                divisible=frozenset({"first", "width", "stride"}),
                tensor_core="none" if name == "fp32" else "best",
                quick=quick,
            )
