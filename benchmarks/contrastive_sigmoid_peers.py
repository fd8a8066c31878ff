"""A step of the sigmoid loss, and its implementations: functions (x, y, log_scale, bias) -> loss.

x and y [pairs, dim] are unit vectors, as open_clip's SigLipLoss takes them. y[i] pairs with x[i].
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch.nn import functional as F

from benchmarks.compiled import compiled
from benchmarks.contrastive_peers import Shape
from benchmarks.interleaved import OURS, Missing
from reserve_kernels import contrastive_loss

SigmoidLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@functools.cache
def _open_clip() -> ModuleType:
    """open_clip's module of losses, from its file: the package imports torchvision, which its losses do not need."""
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise Missing("open_clip is not installed")
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(package.origin).with_name("loss.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ours(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, bias: torch.Tensor, backend: str = "auto"
) -> torch.Tensor:
    options = {"normalize": False, "max_scale": None, "backend": backend}
    return contrastive_loss(x, y, log_scale, kind="sigmoid", bias=bias, **options).loss  # type: ignore[arg-type]


def open_clip(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """open_clip's SigLipLoss on one rank."""
    return _open_clip().SigLipLoss()(x, y, log_scale.exp(), bias)


def dense(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The arithmetic of SigLipLoss, without its module: what a compiler can take whole."""
    logits = log_scale.exp() * x @ y.T + bias
    labels = 2 * torch.eye(len(x), device=x.device, dtype=x.dtype) - 1
    return -F.logsigmoid(labels * logits).sum() / len(x)


def compiled_dense(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`dense` through torch.compile."""
    return compiled(dense)(x, y, log_scale, bias)


RECOMPUTING = "reserve, chunked only"
PEERS: dict[str, SigmoidLoss] = {
    RECOMPUTING: functools.partial(ours, backend="chunked"),
    "open_clip": open_clip,
    "dense PyTorch, compiled": compiled_dense,
}


class SigmoidStep:
    """One forward and backward pass; its gradients stay in the leaves until the next."""

    def __init__(self, loss: SigmoidLoss, shape: Shape, dtype: torch.dtype, device: str) -> None:
        pairs, _, dim = shape
        generator = torch.Generator().manual_seed(0)
        x, y = (torch.randn(pairs, dim, generator=generator) for _ in range(2))
        # Correlated pairs, as after some training.
        sides = [F.normalize(v, dim=1) for v in (x, x + y)]
        self.leaves = [v.to(device, dtype).requires_grad_() for v in sides]
        # SigLIP starts with a temperature of 10 and a bias of -10.
        self.leaves += [torch.tensor(value, device=device).requires_grad_() for value in (2.302585, -10.0)]
        self.loss = loss

    def __call__(self) -> torch.Tensor:
        for leaf in self.leaves:
            leaf.grad = None
        loss = self.loss(*self.leaves)
        loss.backward()
        return loss.detach()

    def result(self) -> list[torch.Tensor]:
        """The loss and all gradients."""
        return [self(), *(leaf.grad for leaf in self.leaves if leaf.grad is not None)]


def sigmoid_cpu_step(name: str, shape: Shape) -> SigmoidStep:
    """A float32 step of the implementation `name` on the CPU, warmed up as `contrastive_peers.cpu_step` is."""
    loss = (PEERS | {OURS: ours})[name]
    warm_up = shape if loss is compiled_dense else (512, 512, shape[2])
    SigmoidStep(loss, warm_up, torch.float32, "cpu")()
    return SigmoidStep(loss, shape, torch.float32, "cpu")
