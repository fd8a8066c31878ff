"""Matrix products in float32 of operands in half precision, which only CUDA has; elsewhere they are widened first."""

from __future__ import annotations

import torch


def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """a @ b in float32 at least."""
    if a.dtype in (torch.float32, torch.float64):
        return torch.mm(a, b, out=out)
    if a.device.type != "cuda":
        return torch.mm(a.float(), b.float(), out=out)
    return torch.mm(a, b, out_dtype=torch.float32, out=out)


def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """total += a @ b, in float32 at least."""
    if a.dtype in (torch.float32, torch.float64):
        total.addmm_(a, b)
    elif a.device.type != "cuda":
        total.addmm_(a.float(), b.float())
    else:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
