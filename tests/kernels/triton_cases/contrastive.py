"""The kernels of contrastive_loss as kernels/contrastive/triton.py launches them.

Scaled vectors have whole blocks of elements and the numbers of rows are never specialised, so that the tiles of logits
have one kernel for all sizes. A dimension of 1 is a constant.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.contrastive_peers import VARIANTS
from reserve_kernels.contrastive.triton import (
    MERGE_CONSTANTS,
    MERGE_WARPS,
    SCALE_CONSTANTS,
    SCALE_WARPS,
    tiles,
)
from reserve_kernels.contrastive.triton_kernels import (
    logsumexp_kernel,
    merge_kernel,
    scale_backward_kernel,
    scale_kernel,
    weights_kernel,
)
from tests.kernels.triton_report import Case

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SIZES = dict.fromkeys(("first", "n", "m", "dim", "width", "stride", "parts_stride", "tiles", "count"), "i32")
FLOATS = (
    *("row_parts", "column_parts", "diagonal"),
    *("row_grad", "row_lse", "column_grad", "column_lse", "diagonal_grad"),
)
CANDIDATE = VARIANTS["two blocks a multiprocessor"][1]["ONE_DIRECTION"]
DIRECTIONS = [(True, True), (True, False), (False, True)]
FLAGS = [
    (logsumexp_kernel, {"BY_ROW": True, "BY_COLUMN": True, "GIVEN": False, "STORE": False}),
    (logsumexp_kernel, {"BY_ROW": True, "BY_COLUMN": False, "GIVEN": False, "STORE": False}),
    *(
        (logsumexp_kernel, {"BY_ROW": by_row, "BY_COLUMN": by_column, "GIVEN": given, "STORE": True})
        for given in (False, True)
        for by_row, by_column in DIRECTIONS
    ),
    *(
        (weights_kernel, {"BY_ROW": by_row, "BY_COLUMN": by_column, "GIVEN": given})
        for given in (False, True)
        for by_row, by_column in DIRECTIONS
    ),
]
"""Tiles that are computed and kept or not, and those of stored logits."""


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
        stored = "*fp32" if name == "fp32" else "*fp16"
        for kernel, flags in FLAGS:
            set_flags = " ".join(flag for flag, value in flags.items() if value)
            given = flags["GIVEN"]
            options = [(tile.num_stages, 0, "")]
            # The candidate is for logits that are computed again.
            one = flags["BY_ROW"] != flags["BY_COLUMN"] and not given and not flags.get("STORE")
            if name == "bf16" and architecture == 90 and one:
                options.append((CANDIDATE["num_stages"], CANDIDATE["maxnreg"], ", candidate"))
            # Blocks of logits from the library are float32; stored ones have a dtype of their own.
            of_kernel = types | {"stored": stored}
            if given:
                of_kernel |= {"x": "*fp32"} if kernel is logsumexp_kernel else {"a": stored}
            for stages, registers, which in options:
                yield Case(
                    f"{kernel.__name__} {name} {set_flags}".rstrip() + which,
                    kernel,
                    of_kernel,
                    flags | tile.constants(),
                    tile.num_warps,
                    stages,
                    divisible=frozenset({"width", "stride"} | ({"first"} if kernel is weights_kernel else set())),
                    tensor_core="none" if name == "fp32" or given else "best",
                    max_registers=registers,
                    quick=quick and not given and not which,
                )
    yield Case(
        "merge_kernel",
        merge_kernel,
        SIZES | {"parts": "*fp32", "out": "*fp32"},
        MERGE_CONSTANTS,
        MERGE_WARPS,
        num_stages=3,
        tensor_core="none",
        quick=True,
    )
