"""rotary_attention against PyTorch's and others' attention, on the shapes that the model has.

    pytest benchmarks/attention.py --benchmark-json=benchmarks/results/NAME.json

Peers do the whole job, position and mask included, and their result is compared before they are timed; those called
"less" leave the position out. FLOPs are those of the scores and sums between tokens that attend to each other: what a
kernel computes for padding, or twice, does not count.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.cuda_graphs import CALLS, captured, cuda_limits
from benchmarks.interleaved import compare, cpu_limits
from reserve_kernels import rotary_attention
from reserve_kernels.attention.availability import IMPLEMENTATIONS

HEADS = 12
ROTATED = 32


def spread(count: int, low: int, high: int) -> list[int]:
    """`count` lengths between `low` and `high`, in no order, both ends among them."""
    step = (high - low) / max(count - 1, 1)
    return [low + round(step * (i * 37 % count)) for i in range(count)]


CPU_SHAPES = {
    "joint": [640, 303, 512, 417],
    "vision": [241] * 8,
    "audio": [31] * 64,
    "span": spread(64, 4, 17),
}
CUDA_SHAPES = {
    "joint": spread(96, 303, 640),
    "joint, grid 18x32": [1312] * 48,
    "vision": [241] * 256,
    "audio": [31] * 768,
    "span": spread(768, 4, 17),
}
PASSES = ["forward", "forward+backward"]

Call = Callable[[], object]


class Problem(NamedTuple):
    """Packed inputs of one shape, and the gradient of the output."""

    lengths: list[int]
    qkv: torch.Tensor
    grad: torch.Tensor
    cu_seqlens: torch.Tensor
    angles: torch.Tensor

    def flops(self, backward: bool) -> int:
        """Useful operations: two products forward, five more backward."""
        return (14 if backward else 4) * 64 * self.qkv.shape[2] * sum(length**2 for length in self.lengths)

    def bytes(self, backward: bool) -> int:
        """The fewest bytes: forward reads qkv and angles and writes out and lse; backward reads all of them and the
        output's gradient, and writes qkv's.
        """
        row = self.qkv.shape[2] * 64 * self.qkv.element_size()
        forward = 4 * row + 4 * 16 + 4 * self.qkv.shape[2]
        return len(self.qkv) * (forward + (8 * row + 4 * 16 + 4 * self.qkv.shape[2] if backward else 0))


def make_problem(lengths: list[int], device: str, dtype: torch.dtype) -> Problem:
    generator = torch.Generator(device).manual_seed(0)
    tokens = sum(lengths)
    qkv = torch.randn(tokens, 3, HEADS, 64, generator=generator, device=device).to(dtype).requires_grad_()
    grad = torch.randn(tokens, HEADS, 64, generator=generator, device=device).to(dtype)
    angles = torch.randn(tokens, 16, generator=generator, device=device)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int().to(device)
    return Problem(lengths, qkv, grad, cu_seqlens, angles)


def ours(problem: Problem, backend: str = "auto", position: bool = True) -> Callable[[], torch.Tensor]:
    angles = problem.angles if position else None
    longest = max(problem.lengths)
    return lambda: rotary_attention(problem.qkv, problem.cu_seqlens, longest, angles=angles, backend=backend)


def _rotated(qk: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """The diagonal position, as a model that has no op for it writes it: qk [..., heads, 64], angles [..., 1, 16]."""
    sin, cos = angles.sin(), angles.cos()
    factors = torch.stack((sin - cos, sin + cos), -1).flatten(-2).to(qk.dtype)
    return torch.cat((qk[..., :ROTATED] * factors, qk[..., ROTATED:]), -1)


def padded_sdpa(problem: Problem) -> tuple[Callable[[], torch.Tensor], torch.Tensor, torch.Tensor, Callable]:
    """SDPA as it is used without packing: everything padded to the longest, a boolean mask of what is there.

    Its qkv comes padded, as it would in a model that pads: no copies are charged to it.
    """
    lengths = torch.tensor(problem.lengths, device=problem.qkv.device)
    valid = torch.arange(max(problem.lengths), device=lengths.device) < lengths[:, None]
    qkv = problem.qkv.new_zeros(*valid.shape, *problem.qkv.shape[1:])
    qkv[valid] = problem.qkv.detach()
    grad = problem.grad.new_zeros(*valid.shape, *problem.grad.shape[1:])
    grad[valid] = problem.grad
    angles = problem.angles.new_zeros(*valid.shape, 16)
    angles[valid] = problem.angles
    mask = valid[:, None, None, :] & valid[:, None, :, None] | ~valid[:, None, :, None]
    qkv.requires_grad_()

    def run() -> torch.Tensor:
        q, k, v = qkv.unbind(2)
        q, k = (_rotated(x, angles[:, :, None]).transpose(1, 2) for x in (q, k))
        return scaled_dot_product_attention(q, k, v.transpose(1, 2), attn_mask=mask).transpose(1, 2)

    return run, qkv, grad, lambda x: x[valid]


def looped_sdpa(problem: Problem) -> tuple[Callable[[], torch.Tensor], torch.Tensor, torch.Tensor, Callable]:
    """One SDPA call a sequence: no mask and no padding."""

    def run() -> torch.Tensor:
        q, k, v = problem.qkv.unbind(1)
        q, k = (_rotated(x, problem.angles[:, None]) for x in (q, k))
        parts = [x.transpose(0, 1)[None].split(problem.lengths, dim=2) for x in (q, k, v)]
        outputs = [scaled_dot_product_attention(*part)[0].transpose(0, 1) for part in zip(*parts, strict=True)]
        return torch.cat(outputs)

    return run, problem.qkv, problem.grad, lambda x: x


def block_mask_sdpa(problem: Problem) -> tuple[Callable[[], torch.Tensor], torch.Tensor, torch.Tensor, Callable]:
    """One SDPA call on the packed tokens, with a boolean mask of who belongs together."""
    lengths = torch.tensor(problem.lengths)
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(problem.qkv.device)
    mask = sequence[:, None] == sequence

    def run() -> torch.Tensor:
        q, k, v = problem.qkv.unbind(1)
        q, k = (_rotated(x, problem.angles[:, None]) for x in (q, k))
        out = scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in (q, k, v)), attn_mask=mask)
        return out[0].transpose(0, 1)

    return run, problem.qkv, problem.grad, lambda x: x


CPU_PEERS = {"SDPA, padded and masked": padded_sdpa, "SDPA, loop": looped_sdpa, "SDPA, block mask": block_mask_sdpa}


def with_pass(run: Callable[[], torch.Tensor], leaf: torch.Tensor, grad: torch.Tensor, backward: bool) -> Call:
    """The forward pass without a graph for autograd, or both passes."""
    if backward:
        return lambda: torch.autograd.grad(run(), leaf, grad)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return run()

    return forward


def record(benchmark, problem: Problem, backward: bool, calls: int, limits: dict[str, float], **more: object) -> None:
    """Adds what was counted, and what fraction of the machine's limits was reached."""
    flops, moved = problem.flops(backward), problem.bytes(backward)
    benchmark.extra_info.update(
        op="rotary_attention",
        tokens=len(problem.qkv),
        sequences=len(problem.lengths),
        flops=flops,
        bytes=moved,
        dtype=str(problem.qkv.dtype),
        torch=torch.__version__,
        machine=platform.machine(),
        **limits,
        **more,
    )
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.median / calls
        benchmark.extra_info.update(
            useful_flops_per_s=flops / seconds,
            fraction_of_matmul_rate=flops / seconds / limits["matmul_flops_per_s"],
            fraction_of_copy_bandwidth=moved / seconds / limits["copy_bytes_per_s"],
        )


def assert_same_job(problem: Problem, out: torch.Tensor, peer_out: torch.Tensor) -> float:
    difference = float((out - peer_out).abs().max())
    allowed = 1e-4 if problem.qkv.dtype == torch.float32 else 5e-2
    assert difference < allowed, f"the peer computes something else: {difference}"
    return difference


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    """Sets PyTorch's number of threads."""
    if request.param > (os.cpu_count() or 1):
        pytest.skip(f"only {os.cpu_count()} CPUs")
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("shape", CPU_SHAPES)
@pytest.mark.parametrize("peer", CPU_PEERS)
def test_cpu(benchmark, threads, shape, peer, passes):
    benchmark.group = f"attention, CPU, {threads} threads, {shape}, {passes}"
    backward = passes != "forward"
    problem = make_problem(CPU_SHAPES[shape], "cpu", torch.float32)
    run_ours = ours(problem)
    run_peer, leaf, grad, packed = CPU_PEERS[peer](problem)
    difference = assert_same_job(problem, run_ours(), packed(run_peer()))
    call = with_pass(run_ours, problem.qkv, problem.grad, backward)
    compare(benchmark, call, with_pass(run_peer, leaf, grad, backward), rounds=15)
    limits = cpu_limits()
    record(benchmark, problem, backward, 1, limits, peer=peer, threads=threads, largest_difference=difference)


CUDA_PEERS = {
    **{b.name: (b.name, True) for b in IMPLEMENTATIONS if b.name not in ("triton", "reference")},
    **{f"{name}, less: no position": (name, False) for name in ("flash_attn", "varlen", "xformers")},
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("shape", CUDA_SHAPES)
@pytest.mark.parametrize("peer", CUDA_PEERS)
def test_cuda(benchmark, shape, peer, passes):
    backend, position = CUDA_PEERS[peer]
    reason = {b.name: b for b in IMPLEMENTATIONS}[backend].unavailable(torch.device("cuda"), torch.bfloat16)
    if reason is not None:
        pytest.skip(reason)
    benchmark.group = f"attention, CUDA, {shape}, {passes}"
    backward = passes != "forward"
    problem = make_problem(CUDA_SHAPES[shape], "cuda", torch.bfloat16)
    run_ours, run_peer = ours(problem, "triton"), ours(problem, backend, position)
    difference = assert_same_job(problem, run_ours(), run_peer()) if position else None
    calls = [with_pass(run, problem.qkv, problem.grad, backward) for run in (run_ours, run_peer)]
    memory = []
    for call in calls:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        call()
        memory.append(torch.cuda.max_memory_allocated() - held)
    compare(benchmark, *(captured(call) for call in calls), rounds=15)
    gpu = {"gpu": torch.cuda.get_device_name(), "peak_bytes": memory[0], "peer_peak_bytes": memory[1]}
    extra = {"peer": peer, "calls": CALLS, "largest_difference": difference, **gpu}
    record(benchmark, problem, backward, CALLS, cuda_limits(), **extra)
