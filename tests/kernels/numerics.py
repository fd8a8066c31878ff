"""The acceptance rule of every op: at most twice the error of PyTorch in the same dtype."""

from __future__ import annotations

import torch


def assert_as_good_as_reference(out: torch.Tensor, truth: torch.Tensor, reference: torch.Tensor) -> None:
    """max|out - truth| <= 2 max|reference - truth| + rounding, all over the elements.

    `truth` is the reference in float64, `reference` what PyTorch gives in the dtype of `out`: the op's reference where
    that rounds as plain PyTorch does, otherwise an implementation of the tests.
    """
    assert out.dtype == reference.dtype
    assert out.shape == truth.shape
    if out.numel() == 0:
        return
    error = (out.double() - truth).abs().max()
    # In float64 the reference is its own truth: only the order of summation differs, hence the factor there.
    rounding = torch.finfo(out.dtype).eps * truth.abs().max() * (64 if out.dtype == torch.float64 else 1)
    allowed = 2 * (reference.double() - truth).abs().max() + rounding
    assert error <= allowed, f"error {error:.3e} exceeds {allowed:.3e}"
