"""A whole training step on random batches: the model as the trainer runs it, with other back ends, and padded.

All share one model and optimiser (BF16AdamW), since several would not fit a GPU, and the weights do not change (see
`step_cases.comparable`), which costs the optimiser the same. Loading the batch, and padding it for the padded model, is
not part of the step. FLOPs are the necessary ones, see `reserve.model.flops`; divided by the rate of a matrix product
in the same run they give the utilisation.
"""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from benchmarks import machine
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
    selected,
)
from benchmarks.machine import cpu_label, cpu_limits, torch_threads
from benchmarks.padded_model import PaddedModel, padded_batch
from benchmarks.step_cases import BASE, GOLDEN, LARGE, SMALL, Step, comparable, random_batch, replaced_ops
from reserve.config import Config
from reserve.tasks.task import Loss
from reserve.train.compilation import compile_layers, compiler_fault
from reserve_kernels import backends

OP = "training step"


def _eager(step: Step) -> Step:
    """Without compilation, although another way may have compiled the model's layers."""

    def loss(batch: Any) -> Loss:
        with torch.compiler.set_stance("force_eager"):
            return step.loss(batch)

    return step.variant(loss, step.batch)


def _compiled_layers(step: Step) -> Step:
    _need_compiler(step)
    compile_layers(step.model, "layers", step.ranks.device)
    return step


def _as_the_trainer(step: Step) -> Step:
    """With the default of `train.compile`."""
    return step if compile_layers(step.model, "auto", step.ranks.device) else _eager(step)


def _padded(step: Step, compilation: str = "") -> Step:
    model = PaddedModel(step.model)
    batch = padded_batch(step.batch.to("cpu"), step.config, step.dtype)
    if not compilation:
        return step.variant(model.loss, batch)
    _need_compiler(step)
    if compilation == "whole":
        return step.variant(torch.compile(model.loss, dynamic=False), batch)
    model.compile_layers()
    return step.variant(model.loss, batch)


def _need_compiler(step: Step) -> None:
    fault = compiler_fault(step.ranks.device.type)
    if fault is not None:
        raise Missing(f"torch.compile does not work here: {fault}")


def _with_ops(step: Step, *, attention: str, contrastive: str = "reference") -> Step:
    """Our model, not compiled, with other back ends."""
    for op, backend in (("rotary_attention", attention), ("contrastive_loss", contrastive)):
        chosen = (op, backend, step.ranks.device.type)
        reasons = [s.reason for s in backends(step.dtype) if (s.op, s.backend, s.device) == chosen and s.reason]
        if reasons:
            raise Missing(reasons[0])

    def loss(batch: Any) -> Loss:
        with replaced_ops(attention, contrastive):
            return step.loss(batch)

    return _eager(step.variant(loss, step.batch))


COMPILED, PADDED = "reserve, compiled layers", "padded"
PADDED_LAYERS, PADDED_COMPILED = "padded, compiled layers", "padded, compiled"
WAYS: dict[str, Callable[[Step], Step]] = {
    OURS: _as_the_trainer,
    COMPILED: _compiled_layers,
    "reserve, not compiled": _eager,
    PADDED: _padded,
    PADDED_LAYERS: functools.partial(_padded, compilation="layers"),
    PADDED_COMPILED: functools.partial(_padded, compilation="whole"),
    "varlen attention, dense loss": functools.partial(_with_ops, attention="varlen"),
    "flash-attn, dense loss": functools.partial(_with_ops, attention="flash_attn"),
    "SDPA, dense loss": functools.partial(_with_ops, attention="sdpa"),
    "plain PyTorch ops (reference)": functools.partial(_with_ops, attention="reference"),
}
"""How to turn a step of our model into that of an implementation. Whether the padded model is faster compiled layer by
layer or as a whole depends on its size and on the number of threads, so both are timed."""


@dataclass(frozen=True)
class Case:
    """A batch of `examples`, the peers of its steps, and for how many rounds they are timed."""

    config: Config
    examples: int
    peers: tuple[str, ...] = (COMPILED, PADDED, PADDED_LAYERS, PADDED_COMPILED)
    rounds: int = 9
    slow: bool = False
    memory: bool = False
    """Whether the peak is measured on a CPU, which takes a process for each implementation."""

    def step(self, device: str) -> Step:
        """Its step after the first one, which allocates the optimiser's moments."""
        config = comparable(self.config)
        step = Step(config, random_batch(config, self.examples), torch.device(device))
        step()
        return step


FLOAT32_BASE = replace(BASE, train=replace(BASE.train, precision="float32"))
FOUR_LAYERS = replace(BASE.model, vit_num_layers=4, audio_num_layers=4, joint_num_layers=4)
HALF_GOLDEN = replace(GOLDEN, train=replace(GOLDEN.train, precision="bfloat16"))
CPU_THREADS = (1, 2)
DEMO_PEERS = (COMPILED, PADDED, PADDED_LAYERS, PADDED_COMPILED, "SDPA, dense loss", "plain PyTorch ops (reference)")
CPU_CASES = {
    "demo, 8 examples": Case(SMALL, 8, DEMO_PEERS, memory=True),
    "golden model, 2 examples": Case(GOLDEN, 2),
    "golden model, 2 examples, bfloat16": Case(HALF_GOLDEN, 2),
    "four base layers, 1 example": Case(replace(FLOAT32_BASE, model=FOUR_LAYERS), 1, rounds=3, memory=True),
    "base, 1 example": Case(FLOAT32_BASE, 1, (PADDED, PADDED_LAYERS), rounds=3, slow=True),
}
CUDA_PEERS = (
    "reserve, not compiled",
    PADDED,
    PADDED_LAYERS,
    PADDED_COMPILED,
    "varlen attention, dense loss",
    "flash-attn, dense loss",
    "SDPA, dense loss",
)
CUDA_CASES = {"base, 16 examples": Case(BASE, 16, CUDA_PEERS), "large, 5 examples": Case(LARGE, 5, CUDA_PEERS)}
"""Sized for a GPU of 80 GB: without compilation, an example of the base model saves 3.3 to 3.6 GB for the backward
pass, counted on a CPU with autocast to bfloat16, and one of the large model about 2.5 times that, by its sizes."""


def _contender(step: Step, name: str, details: dict[str, Any]) -> Contender:
    made = WAYS[name](step)
    if step.ranks.device.type == "cuda":
        details = details | {"peak_extra_bytes": peak_extra_bytes(made)}
    return Contender(made, made.loss_and_gradient, details=details)


def _measured(case: Case, device: str, peaks: dict[str, int], limits: Callable[[], dict[str, float]]) -> Measured:
    # Each case counts anew: beyond Dynamo's limit of graphs a function would silently run uncompiled.
    torch._dynamo.reset()
    step = case.step(device)
    half = step.dtype == torch.bfloat16
    measured = measure(
        {
            name: functools.partial(_contender, step, name, {"peak_extra_bytes": peaks[name]} if name in peaks else {})
            for name in (OURS, *case.peers)
        },
        rounds=case.rounds,
        difference=largest_relative_difference,
        tolerance=5e-2 if half else 1e-3,
        clock=EventClock(flush=False) if device == "cuda" else None,
        warm_up=1,
    )
    measured.facts = {"examples": case.examples}
    # The CPU's limit is that of float32. The traffic of weights, gradients and moments is small beside the products.
    if device == "cuda" or not half:
        measured.facts |= {"flops": step.flops, "bytes": 0, **limits()}
    return measured


def _step_of(label: str, name: str) -> Step:
    """A step of a case on the CPU by an implementation that has compiled. Memory that it does not need is returned."""
    made = WAYS[name](CPU_CASES[label].step("cpu"))
    made()
    made.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return made


@functools.cache
def on_cpu(label: str, threads: int) -> Measured:
    case, peaks = CPU_CASES[label], {}
    if case.memory and threads == max(CPU_THREADS):
        names = (name for name in (OURS, *case.peers) if selected(name))
        peaks = {name: machine.peak_extra_bytes(_step_of, (label, name), threads) for name in names}
    with torch_threads(threads):
        return _measured(case, "cpu", peaks, functools.partial(cpu_limits, threads))


def _tests(cases: dict[str, Case]) -> list[Any]:
    """The parameters (label, implementation) of tests."""
    return [
        pytest.param(label, name, marks=[pytest.mark.slow] if case.slow else [])
        for label, case in cases.items()
        for name in (OURS, *case.peers)
    ]


@replayed
@pytest.mark.parametrize("threads", CPU_THREADS)
@pytest.mark.parametrize(("case", "implementation"), _tests(CPU_CASES))
def test_cpu(benchmark, case, implementation, threads):
    measured = on_cpu(case, threads)
    publish(benchmark, measured, implementation, op=OP, device=cpu_label(threads), label=case, threads=threads)


@functools.cache
def on_cuda(label: str) -> Measured:
    return _measured(CUDA_CASES[label], "cuda", {}, cuda_limits)


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize(("case", "implementation"), _tests(CUDA_CASES))
def test_cuda(benchmark, case, implementation):
    publish(benchmark, on_cuda(case), implementation, op=OP, device=cuda_label(), label=case)
