"""Inputs for contrastive_loss, and SPEC 8 written out."""

from __future__ import annotations

import math

import torch


def make_inputs(pairs=37, extra=11, dim=64, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        return torch.randn(n, dim, generator=generator, dtype=torch.float64).to(dtype)

    return {"x": draw(pairs), "y": draw(pairs), "x_extra": draw(extra // 2), "y_extra": draw(extra)}


def dense(x, y, log_scale, x_extra=None, y_extra=None):
    """SPEC 8 written out: cross-entropy on materialised logits."""

    def prepare(v):
        return (
            v / torch.sqrt(v.square().sum(-1, keepdim=True) + 1e-5) * torch.exp(log_scale.clamp(max=math.log(100)) / 2)
        )

    xs, ys = (
        prepare(torch.cat([x, x_extra]) if x_extra is not None else x),
        prepare(torch.cat([y, y_extra]) if y_extra is not None else y),
    )
    n = torch.arange(x.shape[0], device=x.device)
    forward = torch.nn.functional.cross_entropy(xs[: len(x)] @ ys.T, n, reduction="none")
    backward = torch.nn.functional.cross_entropy(ys[: len(y)] @ xs.T, n, reduction="none")
    return (forward.mean() + backward.mean()) / 2, forward, backward
