"""The kernels of bias_quick_gelu as kernels/quick_gelu/triton.py launches them."""

from __future__ import annotations

from collections.abc import Iterator

from reserve_kernels.quick_gelu.triton import BACKWARD, FORWARD, NARROWEST
from reserve_kernels.quick_gelu.triton_kernels import backward_kernel, forward_kernel
from tests.kernels.triton_report import Case

SIZES = dict.fromkeys(("rows", "features", "length"), "i32")


def cases(architecture: int) -> Iterator[Case]:
    for kernel, tile in ((forward_kernel, FORWARD), (backward_kernel, BACKWARD)):
        for dtype in ("bf16", "fp16", "fp32"):
            for bias in dict.fromkeys(("fp32", dtype, None)):
                pointers = dict.fromkeys(("grad", "x", "out", "grad_x"), f"*{dtype}")
                # The pointer of x stands for that of a missing bias.
                types = SIZES | pointers | {"bias": f"*{bias or dtype}", "parts": "*fp32"}
                for what, features, divisible in (
                    ("", tile.columns, {"features"}),
                    (" odd", tile.columns, set()),
                    (" narrow", NARROWEST, {"features"}),
                ):
                    shaped = tile.for_features(features)
                    yield Case(
                        f"{kernel.__name__} {dtype}, bias {bias}{what}",
                        kernel,
                        types,
                        shaped.constants() | {"HAS_BIAS": bias is not None},
                        shaped.num_warps,
                        num_stages=3,
                        divisible=frozenset(divisible),
                        tensor_core="none",
                        quick=(dtype, bias, what) == ("bf16", "fp32", ""),
                    )
