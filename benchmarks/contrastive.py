"""contrastive_loss against what else computes it: forward and backward, from vectors before normalisation.

    pytest benchmarks/contrastive.py -m "not gpu" --benchmark-json=benchmarks/results/NAME.json

Each peer does the whole job (normalisation, temperature, both directions, gradients of both sides and of log_scale)
and its loss and gradient are compared before it is timed. The extra memory of a CPU step is the growth of the peak
resident set over what there was before, in a process of its own.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.interleaved import compare, cpu_limits
from reserve_kernels import contrastive_loss

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

CPU_SHAPE = (8192, 8192, 768)
GPU_SHAPES = [(4096, 4096, 768), (16384, 16384, 768), (16384, 16384, 1024), (6144, 49152, 768), (6144, 49152, 1024)]
"""Pairs, candidates of each pair's x, dimension."""


def flops(pairs: int, candidates: int, dim: int) -> dict[str, int]:
    """Multiplications and additions of the matrix products: logits, then one for each side's gradient. The loss
    computes the logits once more in the backward pass; from y to x there are only the pairs.
    """
    product = 2 * pairs * candidates * dim
    return {"flops_needed": 3 * product, "flops_done": 4 * product}


def least_bytes(pairs: int, candidates: int, dim: int, itemsize: int) -> int:
    """Each vector read and its gradient written once."""
    return 2 * (pairs + candidates) * dim * itemsize


def normalised(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple((v / torch.sqrt(v.square().sum(-1, keepdim=True) + 1e-5)) for v in (x, y))  # type: ignore[return-value]


def ours(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    extra = y[len(x) :] if len(y) > len(x) else None
    return contrastive_loss(x, y[: len(x)], log_scale, y_extra=extra).loss


def dense(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """matmul and cross_entropy on all logits."""
    unit_x, unit_y = normalised(x, y)
    logits = unit_x * torch.exp(log_scale.clamp(max=math.log(100))).to(x.dtype) @ unit_y.T
    target = torch.arange(len(x), device=x.device)
    there, back = F.cross_entropy(logits.float(), target), F.cross_entropy(logits[:, : len(x)].T.float(), target)
    return (there + back) / 2


def compiled(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """The same through torch.compile."""
    return _compiled_dense(x, y, log_scale)


_compiled_dense = torch.compile(dense)


def open_clip(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """open_clip's ClipLoss, which takes unit vectors."""
    loss = pytest.importorskip("open_clip").ClipLoss()
    return loss(*normalised(x, y), torch.exp(log_scale.clamp(max=math.log(100))).to(x.dtype))


def checkpointed(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """GradCache's idea at the loss: 1024 rows at a time, their logits computed again in the backward pass."""
    unit_x, unit_y = normalised(x, y)
    unit_x = unit_x * torch.exp(log_scale.clamp(max=math.log(100))).to(x.dtype)

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
    module = pytest.importorskip("inf_cl")
    unit_x, unit_y = normalised(x, y)
    scale = torch.exp(log_scale.clamp(max=math.log(100)))
    return (module.cal_flash_loss(unit_x, unit_y, scale=scale) + module.cal_flash_loss(unit_y, unit_x, scale=scale)) / 2


CPU_PEERS: dict[str, Loss] = {
    "dense": dense,
    "compiled": compiled,
    "open_clip": open_clip,
    "checkpointed": checkpointed,
}
GPU_PEERS: dict[str, Loss] = CPU_PEERS | {"inf_cl": inf_cl}
ONLY_SQUARE = ("open_clip", "inf_cl")


class Step:
    """One forward and backward pass, its gradients kept where they are overwritten by the next."""

    def __init__(self, loss: Loss, shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> None:
        pairs, candidates, dim = shape
        generator = torch.Generator().manual_seed(0)
        draw = [torch.randn(n, dim, generator=generator) for n in (pairs, candidates)]
        # Pairs that belong together, as after some training.
        draw[1][:pairs] += draw[0]
        self.leaves = [v.to(device, dtype).requires_grad_() for v in draw]
        self.leaves.append(torch.tensor(2.0, device=device, requires_grad=True))
        self.loss = loss

    def __call__(self) -> torch.Tensor:
        for leaf in self.leaves:
            leaf.grad = None
        loss = self.loss(*self.leaves)
        loss.backward()
        if loss.is_cuda:
            torch.cuda.synchronize()
        return loss.detach()


def same_job(one: Step, other: Step, tolerance: float) -> float:
    """Largest relative difference of loss and gradients, by norm."""
    values = [[step(), *(leaf.grad for leaf in step.leaves)] for step in (one, other)]
    differences = [float((a - b).norm() / b.norm()) for a, b in zip(*values, strict=True)]
    assert max(differences) < tolerance, f"the peer computes something else: {differences}"
    return max(differences)


def _resident(line: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(row.split()[1]) * 1024 for row in status if row.startswith(line))


def _peak_in_this_process(loss: Loss, threads: int, results: Any) -> None:
    torch.set_num_threads(threads)
    Step(loss, (512, 512, 768), torch.float32, "cpu")()
    step = Step(loss, CPU_SHAPE, torch.float32, "cpu")
    with open("/proc/self/clear_refs", "w") as references:
        references.write("5")
    before = _resident("VmRSS")
    step()
    results.put(_resident("VmHWM") - before)


def peak_extra_bytes(loss: Loss, threads: int) -> int:
    """Growth of the peak resident set in a step on the CPU, gradients included."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_peak_in_this_process, args=(loss, threads, results))
    process.start()
    peak = results.get(timeout=600)
    process.join()
    return peak


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("peer", CPU_PEERS)
def test_cpu(benchmark, peer, threads):
    if threads > (os.cpu_count() or 1):
        pytest.skip(f"only {os.cpu_count()} CPUs")
    if peer == "open_clip":
        pytest.importorskip("open_clip")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        benchmark.group = f"contrastive_loss {CPU_SHAPE}, float32, forward and backward, {threads} threads"
        mine, theirs = (Step(loss, CPU_SHAPE, torch.float32, "cpu") for loss in (ours, CPU_PEERS[peer]))
        difference = same_job(mine, theirs, 1e-4)
        # Both have run once, and take seconds.
        compare(benchmark, mine, theirs, rounds=5, warm_up=0)
        limits = cpu_limits()
    finally:
        torch.set_num_threads(before)
    _describe(benchmark, peer, CPU_SHAPE, 4, difference)
    own, other = (peak_extra_bytes(loss, threads) for loss in (ours, CPU_PEERS[peer]))
    benchmark.extra_info.update(
        threads=threads,
        wait_policy=os.environ.get("OMP_WAIT_POLICY", "default"),
        load_average=os.getloadavg()[0],
        peak_extra_bytes=own,
        peer_peak_extra_bytes=other,
        memory_ratio=other / own,
        **limits,
    )
    if benchmark.stats is not None:
        rate = flops(*CPU_SHAPE)["flops_done"] / benchmark.stats.stats.median
        benchmark.extra_info["fraction_of_matmul_rate"] = rate / limits["matmul_flops_per_s"]


def _describe(benchmark: Any, peer: str, shape: tuple[int, int, int], itemsize: int, difference: float) -> None:
    benchmark.extra_info.update(
        op="contrastive_loss",
        peer=peer,
        torch=torch.__version__,
        pairs=shape[0],
        candidates=shape[1],
        dim=shape[2],
        bytes=least_bytes(*shape, itemsize),
        largest_difference=difference,
        **flops(*shape),
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("shape", GPU_SHAPES, ids=str)
@pytest.mark.parametrize("peer", GPU_PEERS)
def test_cuda(benchmark, peer, shape):
    """bfloat16; times include the launches and end when the GPU is done."""
    if peer in ONLY_SQUARE and shape[0] != shape[1]:
        pytest.skip(f"{peer} has no candidates that are nobody's pair")
    benchmark.group = f"contrastive_loss {shape}, bfloat16, forward and backward, CUDA"
    mine, theirs = (Step(loss, shape, torch.bfloat16, "cuda") for loss in (ours, GPU_PEERS[peer]))
    difference = same_job(mine, theirs, 3e-2)
    peaks = []
    for step in (mine, theirs):
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        peaks.append(torch.cuda.max_memory_allocated() - held)
    compare(benchmark, mine, theirs, rounds=21)
    _describe(benchmark, peer, shape, 2, difference)
    benchmark.extra_info.update(
        gpu=torch.cuda.get_device_name(),
        peak_extra_bytes=peaks[0],
        peer_peak_extra_bytes=peaks[1],
        memory_ratio=peaks[1] / peaks[0],
    )
