"""A step of the contrastive loss, and its implementations: functions (x, y, log_scale) -> loss.

x [pairs, dim] and y [candidates, dim] are vectors before normalisation. y[i] pairs with x[i]; the rest are negatives.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.compiled import compiled
from benchmarks.interleaved import OURS, Missing
from reserve_kernels import contrastive_loss
from reserve_kernels.contrastive.availability import BACKENDS

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Shape = tuple[int, int, int]
"""Pairs, candidates of each pair's x, dimension."""


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{name} is not installed") from error


def ours(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, backend: str = "auto") -> torch.Tensor:
    if len(x) == len(y):
        return contrastive_loss(x, y, log_scale, backend=backend).loss
    # split, because the gradients of slices are padded to full size and added.
    pairs, extra = y.split((len(x), len(y) - len(x)))
    return contrastive_loss(x, pairs, log_scale, y_extra=extra, backend=backend).loss


def ours_by(backend: str) -> Loss:
    """contrastive_loss by one of its back ends."""

    def loss(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        reason = BACKENDS[backend].unavailable(x.device, x.dtype)
        if reason is not None:
            raise Missing(reason)
        return ours(x, y, log_scale, backend)

    return loss


def normalised(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple((v / torch.sqrt(v.square().sum(-1, keepdim=True) + 1e-5)) for v in (x, y))  # type: ignore[return-value]


def _scale(log_scale: torch.Tensor) -> torch.Tensor:
    return torch.exp(log_scale.clamp(max=math.log(100)))


def dense(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """matmul and cross_entropy over all logits."""
    unit_x, unit_y = normalised(x, y)
    logits = unit_x * _scale(log_scale).to(x.dtype) @ unit_y.T
    logits = logits if logits.dtype == torch.float64 else logits.float()
    target = torch.arange(len(x), device=x.device)
    x_to_y, y_to_x = F.cross_entropy(logits, target), F.cross_entropy(logits[:, : len(x)].T, target)
    return (x_to_y + y_to_x) / 2


def compiled_dense(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """`dense` through torch.compile."""
    return compiled(dense)(x, y, log_scale)


def open_clip(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """open_clip's ClipLoss, which takes unit vectors and no candidates without a pair."""
    if len(x) != len(y):
        raise Missing("open_clip's ClipLoss takes no candidates without a pair")
    return _module("open_clip").ClipLoss()(*normalised(x, y), _scale(log_scale).to(x.dtype))


def checkpointed(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """GradCache's idea applied to the loss: 1024 rows at a time, whose logits the backward pass recomputes."""
    unit_x, unit_y = normalised(x, y)
    unit_x = unit_x * _scale(log_scale).to(x.dtype)

    def rows(part: torch.Tensor, candidates: torch.Tensor, first: int) -> torch.Tensor:
        target = torch.arange(first, first + len(part), device=part.device)
        return F.cross_entropy((part @ candidates.T).float(), target, reduction="sum")

    total = x.new_zeros((), dtype=torch.float32)
    for one, other in ((unit_x, unit_y), (unit_y[: len(x)], unit_x)):
        for first in range(0, len(x), 1024):
            total = total + checkpoint(rows, one[first : first + 1024], other, first, use_reentrant=False)
    return total / (2 * len(x))


def inf_cl(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """Inf-CL's tiled loss on one GPU, once in each direction."""
    if len(x) != len(y):
        raise Missing("Inf-CL's loss takes no candidates without a pair")
    module, scale = _module("inf_cl"), _scale(log_scale)
    unit_x, unit_y = normalised(x, y)
    return (module.cal_flash_loss(unit_x, unit_y, scale=scale) + module.cal_flash_loss(unit_y, unit_x, scale=scale)) / 2


RECOMPUTING = "reserve, chunked only"
CPU_PEERS: dict[str, Loss] = {
    RECOMPUTING: ours_by("chunked"),
    "dense PyTorch": dense,
    "dense PyTorch, compiled": compiled_dense,
    "open_clip": open_clip,
    "checkpointed PyTorch": checkpointed,
}
TWO_THREADS = (RECOMPUTING, "dense PyTorch", "dense PyTorch, compiled")
"""CPU peers that are timed with two threads too; the others take too long."""
SCALING = (RECOMPUTING, "dense PyTorch, compiled")
"""CPU peers that are timed at other sizes too."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "weights of 256 MB": ("dense", {"STORED_WEIGHT_BYTES": 256 << 20}),
    "logits by the library": ("dense", {"LIBRARY_LOGITS": True}),
    "logits by the library, weights of 256 MB": ("dense", {"LIBRARY_LOGITS": True, "STORED_WEIGHT_BYTES": 256 << 20}),
    "two blocks a multiprocessor": ("triton", {"ONE_DIRECTION": {"num_stages": 3, "maxnreg": 128}}),
}
"""Back end, and constants of kernels/contrastive/triton.py: what a GPU is to decide between."""


def variant(name: str) -> Loss:
    """contrastive_loss by one of VARIANTS. The constants hold for the forward and the backward pass of a step."""
    backend, constants = VARIANTS[name]
    plain = ours_by(backend)

    def loss(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        module = _module("reserve_kernels.contrastive.triton")
        before = {constant: getattr(module, constant) for constant in constants}

        def restore(_: torch.Tensor) -> None:
            for constant, value in before.items():
                setattr(module, constant, value)

        for constant, value in constants.items():
            setattr(module, constant, value)
        try:
            found = plain(x, y, log_scale)
        except BaseException:
            restore(x)
            raise
        # After the backward pass, which uses them too.
        found.register_hook(lambda grad: _after_backward(lambda: restore(grad)))
        return found

    return loss


def _after_backward(call: Callable[[], None]) -> None:
    torch.autograd.Variable._execution_engine.queue_callback(call)


CUDA_PEERS: dict[str, Loss] = {
    **{f"reserve, {b.name} only": ours_by(b.name) for b in BACKENDS if b.name != "reference"},
    **{f"reserve, {VARIANTS[name][0]} only, {name}": variant(name) for name in VARIANTS},
    **{name: loss for name, loss in CPU_PEERS.items() if name != RECOMPUTING},
    "Inf-CL": inf_cl,
}


class Step:
    """One forward and backward pass; its gradients stay in the leaves until the next."""

    def __init__(self, loss: Loss, shape: Shape, dtype: torch.dtype, device: str) -> None:
        pairs, candidates, dim = shape
        generator = torch.Generator().manual_seed(0)
        draw = [torch.randn(n, dim, generator=generator) for n in (pairs, candidates)]
        # Correlated pairs, as after some training.
        draw[1][:pairs] += draw[0]
        self.leaves = [v.to(device, dtype).requires_grad_() for v in draw]
        self.leaves.append(torch.tensor(2.0, device=device, requires_grad=True))
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


def cpu_step(name: str, shape: Shape) -> Step:
    """A float32 step of the implementation `name` on the CPU, warmed up.

    The warm-up uses a smaller problem, because memory that it leaves in the allocator would hide what the step needs. A
    compiled implementation warms up on the problem itself, because compilation takes memory too.
    """
    loss = (CPU_PEERS | {OURS: ours})[name]
    warm_up = shape if loss is compiled_dense else (512, 512, shape[2])
    Step(loss, warm_up, torch.float32, "cpu")()
    return Step(loss, shape, torch.float32, "cpu")
