"""contrastive_loss: both kinds, forward and backward, against the dense loss and open_clip's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional as F

from reserve_kernels import contrastive_loss
from reserve_kernels.bench.case import Case
from reserve_kernels.bench.interleaved import OURS, Contender, largest_relative_difference
from reserve_kernels.bench.open_clip_original import open_clip_loss

DIM = 512
PAIRS = (512, 2048)
Loss = Callable[..., torch.Tensor]


def cases(device: torch.device) -> Iterator[Case]:
    """Normalised vectors, float32."""
    for pairs in PAIRS if device.type == "cpu" else (2048, 8192):
        generator = torch.Generator().manual_seed(0)
        vectors = [F.normalize(torch.randn(pairs, DIM, generator=generator), dim=-1).to(device) for _ in range(2)]
        for kind, scalars in (("softmax", [14.0]), ("sigmoid", [10.0, -10.0])):
            inputs = [v.clone().requires_grad_() for v in vectors]
            inputs += [torch.tensor(s, device=device, requires_grad=True) for s in scalars]
            dense = _dense_softmax if kind == "softmax" else _dense_sigmoid
            makers: dict[str, Callable[[], Loss]] = {
                OURS: _always(functools.partial(_ours, kind)),
                "dense PyTorch": _always(dense),
                "open_clip": functools.partial(_open_clip, "ClipLoss" if kind == "softmax" else "SigLipLoss"),
            }
            builders = {name: functools.partial(_contender, make, inputs) for name, make in makers.items()}
            yield Case(kind, f"{pairs} pairs of {DIM}", builders, largest_relative_difference, 1e-3)


def _always(loss: Loss) -> Callable[[], Loss]:
    return lambda: loss


def _contender(make: Callable[[], Loss], inputs: list[torch.Tensor]) -> Contender:
    loss = make()

    def step() -> Any:
        return torch.autograd.grad(loss(*inputs), inputs)

    return Contender(step, lambda: [loss(*inputs).detach(), *step()])


def _ours(kind: str, x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
    offset = bias[0] if bias else None
    return contrastive_loss(x, y, scale.log(), kind=kind, bias=offset, normalize=False, max_scale=None).loss


def _dense_softmax(x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    logits = scale * x @ y.T
    target = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _dense_sigmoid(x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    signs = 2 * torch.eye(len(x), device=x.device) - 1
    return -F.logsigmoid(signs * (scale * x @ y.T + bias)).sum() / len(x)


def _open_clip(name: str) -> Loss:
    return getattr(open_clip_loss(), name)()
