"""BF16AdamW against the same steps in plain PyTorch, and against PyTorch's AdamW, which does less.

PyTorch's moments are float32, twice the memory, unless its fused kernel takes bfloat16 ones, and it does not filter NaN
gradients. The first update of each optimizer is compared before it is timed. Bytes are the minimum: parameter and
moments read and written, gradient read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.cuda import EventClock, cuda_label, cuda_limits
from benchmarks.interleaved import (
    OURS,
    Contender,
    Measured,
    Missing,
    largest_relative_difference,
    measure,
    publish,
    replayed,
)
from benchmarks.machine import cpu_label, cpu_limits, torch_threads
from reserve.config import ModelConfig
from reserve.model.merlot_reserve import MerlotReserve
from reserve_kernels import BF16AdamW

OP = "BF16AdamW"
CPU_MODEL = ModelConfig(vocab_size=8192, vit_num_layers=1, audio_num_layers=1, span_num_layers=1, joint_num_layers=1)
"""The base model with fewer layers: tensors of the same sizes."""

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
LEARNING_RATE = 1e-4
GRADIENT = 0.1
"""Scale of the gradients. With small ones eps would matter: ours adds it to an uncorrected second moment."""
TOLERANCE = 1e-2
SETTINGS: dict[str, Any] = {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1}


def fused_with_bfloat16_moments(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """PyTorch's fused AdamW, given bfloat16 moments to start with. Raises Missing where it does not take them."""

    def make(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, fused=True, **SETTINGS)
        for parameter in parameters:
            moments = {name: torch.zeros_like(parameter, dtype=torch.bfloat16) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
        return optimizer

    tried = torch.nn.Parameter(torch.ones(8, device=parameters[0].device))
    tried.grad = torch.ones_like(tried)
    try:
        make([tried]).step()
    except RuntimeError as error:
        raise Missing(str(error).splitlines()[0]) from error
    return make(parameters)


OPTIMIZERS: dict[str, Make] = {
    OURS: lambda parameters: BF16AdamW(parameters, LEARNING_RATE, **SETTINGS),
    "reserve, stochastic rounding": lambda parameters: BF16AdamW(
        parameters, LEARNING_RATE, rounding="stochastic", **SETTINGS
    ),
    "the same in PyTorch": lambda parameters: BF16AdamW(parameters, LEARNING_RATE, backend="reference", **SETTINGS),
    "AdamW fused, bfloat16 moments": fused_with_bfloat16_moments,
    "reserve, less: float32 moments": lambda parameters: BF16AdamW(
        parameters, LEARNING_RATE, moments="float32", **SETTINGS
    ),
    "AdamW, less: float32 moments": lambda parameters: torch.optim.AdamW(parameters, LEARNING_RATE, **SETTINGS),
    "AdamW fused, less: float32 moments": lambda parameters: torch.optim.AdamW(
        parameters, LEARNING_RATE, fused=True, **SETTINGS
    ),
}


def first_update(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    """The first update of the largest tensor and of the last, without weight decay, normalised to unit length.

    Ours has no bias correction, which only scales the first step.
    """
    chosen = [max(parameters, key=torch.Tensor.numel), parameters[-1]]
    before = [parameter.detach().clone() for parameter in chosen]
    optimizer.step()
    decayed = 1 - SETTINGS["weight_decay"] * LEARNING_RATE
    updates = [after.detach().double() - decayed * start.double() for start, after in zip(before, chosen, strict=True)]
    return [update / update.norm() for update in updates]


def _compare(config: ModelConfig, device: str, limits: dict[str, float], clock: EventClock | None) -> Measured:
    with torch.device("meta"):
        shapes = [p.shape for p in MerlotReserve(config).parameters()]
    numbers = sum(shape.numel() for shape in shapes)

    def build(make: Make) -> Contender:
        generator = torch.Generator(device).manual_seed(0)

        def draw(shape: torch.Size, scale: float) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device) * scale

        parameters = [torch.nn.Parameter(draw(shape, 0.02)) for shape in shapes]
        for parameter in parameters:
            parameter.grad = draw(parameter.shape, GRADIENT)
        optimizer = make(parameters)
        return Contender(optimizer.step, functools.partial(first_update, optimizer, parameters))

    builders = {name: functools.partial(build, make) for name, make in OPTIMIZERS.items()}
    measured = measure(builders, rounds=5, difference=largest_relative_difference, tolerance=TOLERANCE, clock=clock)
    # Parameter, gradient and both bfloat16 moments; arithmetic does not limit it.
    measured.facts = {"parameters": numbers, "bytes": numbers * (4 + 4 + 4 + 2 * (2 + 2)), "flops": 0, **limits}
    return measured


@functools.cache
def on_cpu(threads: int) -> Measured:
    with torch_threads(threads):
        return _compare(CPU_MODEL, "cpu", cpu_limits(threads), None)


@replayed
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("implementation", OPTIMIZERS)
def test_cpu(benchmark, implementation, threads):
    label = "one layer an encoder"
    publish(benchmark, on_cpu(threads), implementation, op=OP, device=cpu_label(threads), label=label, threads=threads)


@functools.cache
def on_cuda() -> Measured:
    return _compare(ModelConfig(), "cuda", cuda_limits(), EventClock())


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize("implementation", OPTIMIZERS)
def test_cuda(benchmark, implementation):
    publish(benchmark, on_cuda(), implementation, op=OP, device=cuda_label(), label="base")
