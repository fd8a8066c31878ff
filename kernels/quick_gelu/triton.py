"""Launches the Triton kernels of bias_quick_gelu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton

from reserve_kernels.quick_gelu.reference import STEEPNESS
from reserve_kernels.quick_gelu.triton_kernels import backward_kernel, forward_kernel

NARROWEST = 64


@dataclass(frozen=True)
class Tile:
    """What a program holds in registers at a time, and how the rows are divided among programs."""

    rows: int
    columns: int
    programs: int
    """The number of programs to aim at: enough to occupy the GPU, and in the backward pass few enough that their
    partial sums of the bias's gradient are small beside x."""
    num_warps: int

    def for_features(self, features: int) -> Tile:
        """The same number of elements, but hardly wider than `features`."""
        columns = min(self.columns, max(NARROWEST, triton.next_power_of_2(features)))
        return Tile(self.rows * self.columns // columns, columns, self.programs, self.num_warps)

    def rows_of_a_strip(self, rows: int, features: int) -> int:
        """Rows of a program, a multiple of the tile's."""
        blocks = triton.cdiv(features, self.columns)
        return triton.cdiv(rows, max(1, self.programs // blocks) * self.rows) * self.rows

    def constants(self) -> dict[str, Any]:
        """The kernels' compile-time arguments."""
        return {"steepness": STEEPNESS, "BLOCK_R": self.rows, "BLOCK_C": self.columns}


FORWARD = Tile(rows=4, columns=1024, programs=1 << 16, num_warps=4)
BACKWARD = Tile(rows=1, columns=1024, programs=1056, num_warps=4)


def quick_gelu_triton(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """As `quick_gelu_reference`."""
    x = x.contiguous()
    out = torch.empty_like(x)
    rows, features = _rows_and_features(x)
    tile = FORWARD.for_features(features)
    length = tile.rows_of_a_strip(rows, features)
    _launch(forward_kernel, (x, _bias_or(x, bias), out), (rows, features, length), tile, bias is not None)
    return out


def quick_gelu_triton_backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `quick_gelu_reference_backward`."""
    x = x.contiguous()
    grad_x = torch.empty_like(x)
    rows, features = _rows_and_features(x)
    tile = BACKWARD.for_features(features)
    length = tile.rows_of_a_strip(rows, features)
    parts = x.new_empty(0 if bias is None else triton.cdiv(rows, length), features, dtype=torch.float32)
    pointers = (grad.contiguous(), x, _bias_or(x, bias), grad_x, parts)
    _launch(backward_kernel, pointers, (rows, features, length), tile, bias is not None)
    return grad_x, parts.sum(0)


def _rows_and_features(x: torch.Tensor) -> tuple[int, int]:
    features = x.shape[-1] if x.dim() else 1
    return x.numel() // features, features


def _bias_or(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The kernels do not read the pointer that stands for a missing bias."""
    return x if bias is None else bias.contiguous()


def _launch(
    kernel: Any, pointers: tuple[torch.Tensor, ...], sizes: tuple[int, int, int], tile: Tile, has_bias: bool
) -> None:
    rows, features, length = sizes
    grid = (triton.cdiv(rows, length) * triton.cdiv(features, tile.columns),)
    with torch.cuda.device_of(pointers[0]):
        kernel[grid](
            *pointers,
            *sizes,
            HAS_BIAS=has_bias,
            **tile.constants(),
            num_warps=tile.num_warps,
            enable_fp_fusion=True,
        )
