"""A whole training step on random batches: the model with our ops, and with other back ends.

All share one model, since several would not fit a GPU. The learning rate is 0, which does not change the optimiser's
cost, so that loss and gradients are compared at the same weights. Loading the batch is not part of the step. FLOPs are
the necessary ones, see `reserve.model.flops`; divided by the rate of a matrix product in the same run they give
the utilisation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from benchmarks.cuda import EventClock, cuda_label, cuda_limits, peak_extra_bytes
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
from benchmarks.step_cases import BASE, LARGE, SMALL, Step, random_batch, replaced_ops
from reserve.config import Config
from reserve_kernels import backends

OP = "training step"
CPU_EXAMPLES = 8
CUDA_CASES = {"base, 16 examples": (BASE, 16), "base, 24 examples": (BASE, 24), "large, 6 examples": (LARGE, 6)}
"""Sized for a GPU of 141 GB: an example of the base model saves 3.3 GB for the backward pass, counted on a CPU with
autocast to bfloat16, and one of the large model about 2.5 times that, by its sizes."""
# Attention, loss.
CPU_OPS = {
    "SDPA, dense loss": ("sdpa", "reference"),
    "plain PyTorch ops (reference)": ("reference", "reference"),
}
CUDA_OPS = {
    "varlen attention, dense loss": ("varlen", "reference"),
    "flash-attn, dense loss": ("flash_attn", "reference"),
    "SDPA, dense loss": ("sdpa", "reference"),
}


def _contender(step: Step, ops: tuple[str, str], on_cuda: bool) -> Contender:
    for op, backend in zip(("rotary_attention", "contrastive_loss"), ops, strict=True):
        status = [
            s for s in backends(torch.bfloat16 if on_cuda else torch.float32) if (s.op, s.backend) == (op, backend)
        ]
        reason = next((s.reason for s in status if s.device == ("cuda" if on_cuda else "cpu")), "")
        if reason:
            raise Missing(reason)

    def run(what: Callable[[], object]) -> object:
        with replaced_ops(*ops):
            return what()

    call = functools.partial(run, step)
    details = {"peak_extra_bytes": peak_extra_bytes(call)} if on_cuda else {}
    return Contender(call, functools.partial(run, step.loss_and_gradient), details=details)


def _compare(config: Config, examples: int, device: str, others: dict[str, tuple[str, str]], rounds: int) -> Measured:
    on_cuda = device == "cuda"
    still = replace(config, optimizer=replace(config.optimizer, learning_rate=0.0))
    step = Step(still, random_batch(config, examples), torch.device(device))
    # The first step allocates the optimiser's moments.
    step()
    ours = {OURS: ("auto", "auto")}
    measured = measure(
        {name: functools.partial(_contender, step, ops, on_cuda) for name, ops in (ours | others).items()},
        rounds=rounds,
        difference=largest_relative_difference,
        tolerance=5e-2 if on_cuda else 1e-3,
        clock=EventClock(flush=False) if on_cuda else None,
        warm_up=1,
    )
    limits = cuda_limits() if on_cuda else cpu_limits(torch.get_num_threads())
    # The traffic of weights, gradients and moments is small beside the products.
    measured.facts = {"examples": examples, "flops": step.flops, "bytes": 0, **limits}
    return measured


@functools.cache
def on_cpu(threads: int) -> Measured:
    with torch_threads(threads):
        return _compare(SMALL, CPU_EXAMPLES, "cpu", CPU_OPS, rounds=5)


@replayed
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("implementation", [OURS, *CPU_OPS])
def test_cpu(benchmark, implementation, threads):
    label = f"small model, {CPU_EXAMPLES} examples"
    publish(benchmark, on_cpu(threads), implementation, op=OP, device=cpu_label(threads), label=label, threads=threads)


@functools.cache
def on_cuda(case: str) -> Measured:
    return _compare(*CUDA_CASES[case], "cuda", CUDA_OPS, rounds=9)


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize("case", CUDA_CASES)
@pytest.mark.parametrize("implementation", [OURS, *CUDA_OPS])
def test_cuda(benchmark, implementation, case):
    publish(benchmark, on_cuda(case), implementation, op=OP, device=cuda_label(), label=case)
