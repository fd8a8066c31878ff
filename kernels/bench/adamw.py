"""BF16AdamW: a step over the tensors of a transformer, against PyTorch's AdamW and 8-bit AdamW."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch

from reserve_kernels import BF16AdamW
from reserve_kernels.bench.case import Case, module
from reserve_kernels.bench.interleaved import OURS, Contender

WIDTH, LAYERS = 512, 6
Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def cases(device: torch.device) -> Iterator[Case]:
    """Not compared: the optimisers round their moments in different ways."""
    makers: dict[str, Make] = {
        OURS: lambda weights: BF16AdamW(weights, 1e-4),
        "torch.optim.AdamW, foreach": lambda weights: torch.optim.AdamW(weights, 1e-4, foreach=True),
        "torch.optim.AdamW, fused": lambda weights: torch.optim.AdamW(weights, 1e-4, fused=True),
    }
    if device.type == "cuda":
        makers["bitsandbytes, 8 bits"] = lambda weights: module("bitsandbytes").optim.AdamW8bit(weights, 1e-4)
    builders = {name: functools.partial(_contender, make, device) for name, make in makers.items()}
    sizes = f"{LAYERS} layers, {WIDTH} wide"
    yield Case("step", sizes, builders, lambda a, b: 0.0, 0.0, {"moments_bytes_of_ours": 2 * 2 * _numbers()})


def _shapes() -> list[tuple[int, ...]]:
    layer = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)]
    return [*layer, *[(shape[0],) for shape in layer], (WIDTH,), (WIDTH,)] * LAYERS


def _numbers() -> int:
    return sum(torch.Size(shape).numel() for shape in _shapes())


def _contender(make: Make, device: torch.device) -> Contender:
    weights = [torch.nn.Parameter(torch.randn(shape, device=device)) for shape in _shapes()]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    return Contender(make(weights).step)
