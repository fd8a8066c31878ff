"""A whole training step on random batches: the model with our ops, and with others in their place.

The batch is there beforehand: loading it is not part of the step. FLOPs are those that the step needs, see
`step_cases.ForwardCounter`; over the rate of a matrix product in the same run they give the utilisation.
"""

from __future__ import annotations

import functools

import pytest
import torch

from benchmarks.cuda import EventClock, cuda_limits, peak_extra_bytes
from benchmarks.interleaved import OURS, Contender, Measured, Missing, measure, publish, replayed
from benchmarks.machine import cpu_limits, threads_label, torch_threads
from benchmarks.step_cases import Step, random_batch, replaced_ops, step_flops
from reserve.config import Config, DataConfig, ModelConfig, TrainConfig
from reserve_kernels import backends

OP = "training step"
SMALL = Config(
    DataConfig(num_segments=8, lang_seq_len=160, seq_len=240, text_span_budget=8, num_text_spans_to_include=18),
    ModelConfig(
        hidden_size=128,
        vit_num_layers=2,
        output_grid=(4, 6),
        audio_num_layers=2,
        audio_patch_size=5,
        span_num_layers=1,
        joint_num_layers=2,
    ),
    train=TrainConfig(precision="float32"),
)
"""The model of `make demo`; stated here because reading its file needs a package that a GPU machine may not have."""
BASE, LARGE = Config(), Config(model=ModelConfig(hidden_size=1024, vit_num_layers=24, joint_num_layers=24))
CPU_EXAMPLES = 8
CUDA_CASES = {"base, 16 examples": (BASE, 16), "base, 64 examples": (BASE, 64), "large, 16 examples": (LARGE, 16)}
# Attention, loss.
CPU_OPS = {"plain PyTorch ops (reference)": ("reference", "reference")}
CUDA_OPS = {
    "varlen attention, dense loss": ("varlen", "reference"),
    "flash-attn, dense loss": ("flash_attn", "reference"),
    "cuDNN SDPA, dense loss": ("sdpa_cudnn", "reference"),
    "plain PyTorch ops (reference)": ("reference", "reference"),
}


def relative_difference(loss: torch.Tensor, ours: torch.Tensor) -> float:
    return abs(float(loss) - float(ours)) / float(ours)


def _contender(step: Step, ops: tuple[str, str], on_cuda: bool) -> Contender:
    for op, backend in zip(("rotary_attention", "contrastive_loss"), ops, strict=True):
        status = [
            s for s in backends(torch.bfloat16 if on_cuda else torch.float32) if (s.op, s.backend) == (op, backend)
        ]
        reason = next((s.reason for s in status if s.device == ("cuda" if on_cuda else "cpu")), "")
        if reason:
            raise Missing(reason)

    def run() -> torch.Tensor:
        with replaced_ops(*ops):
            return step()["loss"]

    details = {"peak_extra_bytes": peak_extra_bytes(run)} if on_cuda else {}
    return Contender(run, run, details=details)


def _compare(config: Config, examples: int, device: str, others: dict[str, tuple[str, str]], rounds: int) -> Measured:
    on_cuda = device == "cuda"
    batch = random_batch(config, examples)

    def build(ops: tuple[str, str]) -> Contender:
        # Its own model: each has taken as many steps as the others.
        return _contender(Step(config, batch, torch.device(device)), ops, on_cuda)

    builders = {name: functools.partial(build, ops) for name, ops in ({OURS: ("auto", "auto")} | others).items()}
    measured = measure(
        builders,
        rounds=rounds,
        difference=relative_difference,
        tolerance=2e-2 if on_cuda else 1e-3,
        clock=EventClock(flush=False) if on_cuda else None,
        warm_up=1,
    )
    limits = cuda_limits() if on_cuda else cpu_limits(torch.get_num_threads())
    model = Step(config, batch, torch.device(device)).model
    with torch.autocast(device, torch.bfloat16, enabled=on_cuda):
        flops = step_flops(model, batch.to(torch.device(device)))
    # Weights read in both passes and updated once, with gradients and moments: little beside the products.
    measured.facts = {"examples": examples, "flops": flops, "bytes": 0, **limits}
    return measured


@functools.cache
def on_cpu(threads: int) -> Measured:
    with torch_threads(threads):
        return _compare(SMALL, CPU_EXAMPLES, "cpu", CPU_OPS, rounds=11)


@replayed
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("implementation", [OURS, *CPU_OPS])
def test_cpu(benchmark, implementation, threads):
    case = f"small model, {CPU_EXAMPLES} examples"
    publish(
        benchmark,
        on_cpu(threads),
        implementation,
        group=f"{OP}, CPU, {threads_label(threads)}, {case}",
        op=OP,
        case=case,
    )
    benchmark.extra_info["threads"] = threads


@functools.cache
def on_cuda(case: str) -> Measured:
    return _compare(*CUDA_CASES[case], "cuda", CUDA_OPS, rounds=9)


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize("case", CUDA_CASES)
@pytest.mark.parametrize("implementation", [OURS, *CUDA_OPS])
def test_cuda(benchmark, implementation, case):
    publish(benchmark, on_cuda(case), implementation, group=f"{OP}, CUDA, {case}", op=OP, case=case)
