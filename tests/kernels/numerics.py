"""The acceptance rule of every op: at most twice the error of PyTorch in the same dtype."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def assert_as_good_as_reference(
    out: torch.Tensor,
    truth: torch.Tensor,
    reference: torch.Tensor,
    alike: Iterable[tuple[torch.Tensor, torch.Tensor]] = (),
) -> None:
    """max|out - truth| <= 2 max|reference - truth| + rounding, all over the elements.

    `truth` is the reference in float64, `reference` what PyTorch gives in the dtype of `out`: the op's reference where
    that rounds as plain PyTorch does, otherwise an implementation of the tests. `alike` are truths and references of
    other draws of the same problem, whose errors count as the reference's: the largest error of one small problem
    depends on chance, so it differs between processors.
    """
    assert out.dtype == reference.dtype
    assert out.shape == truth.shape
    if out.numel() == 0:
        return
    error = (out.double() - truth).abs().max()
    # In float64 the reference is its own truth: only the order of summation differs, hence the factor there.
    rounding = torch.finfo(out.dtype).eps * truth.abs().max() * (64 if out.dtype == torch.float64 else 1)
    lost = max((plain.double() - exact).abs().max() for exact, plain in [(truth, reference), *alike])
    allowed = 2 * lost + rounding
    assert allowed.isfinite(), "the reference is not finite"
    assert error <= allowed, f"error {error:.3e} exceeds {allowed:.3e}"
