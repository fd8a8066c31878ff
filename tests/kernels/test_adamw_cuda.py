"""BF16AdamW on a CUDA device: what emulation and compilation cannot test."""

from __future__ import annotations

import copy

import pytest
import torch

from reserve_kernels import BF16AdamW, backends
from reserve_kernels.adamw.native import adamw_native_
from reserve_kernels.adamw.reference import adamw_reference_
from reserve_kernels.adamw.stochastic import random_bits, tensor_key
from tests.kernels.adamw_cases import CORRECTED, PLAIN, SIZES, Tensors, bits, check_step, draw

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def run(tensors: Tensors, settings, keys=(), firsts=()) -> None:
    """The kernel's step on tensors of the CPU."""
    on_device = tensors.copy("cuda")
    adamw_native_(*on_device.lists(), settings, keys, firsts)
    for on_host, result in zip(tensors.lists(), on_device.lists(), strict=True):
        for tensor, updated in zip(on_host, result, strict=True):
            tensor.copy_(updated)


@pytest.mark.parametrize("moments", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("settings", [PLAIN, CORRECTED], ids=["plain", "corrected"])
@pytest.mark.parametrize("with_start", [False, True])
def test_step_is_as_good_as_the_reference(moments, settings, with_start):
    check_step(run, settings, draw(moments=moments, with_start=with_start))


def test_more_tensors_than_a_launch_holds():
    check_step(run, PLAIN, draw([1 + i * 37 % 5000 for i in range(200)]))


@pytest.mark.parametrize(("full", "empty"), [(0, 3), (72, 1), (73, 0)])
def test_launches_at_their_edges(full, empty):
    check_step(run, PLAIN, draw([5] * full + [0] * empty))


def test_unaligned_tensors():
    def run_unaligned(tensors: Tensors, settings) -> None:
        on_device = tensors.copy("cuda")
        for part in on_device.lists():
            for i, tensor in enumerate(part):
                part[i] = torch.cat((tensor[:1], tensor))[1:]
        adamw_native_(*on_device.lists(), settings)
        for on_host, result in zip(tensors.lists(), on_device.lists(), strict=True):
            for tensor, updated in zip(on_host, result, strict=True):
                tensor.copy_(updated)

    check_step(run_unaligned, PLAIN, draw([5, 2049, 300], with_start=True))


@pytest.mark.parametrize("sizes", [[5, 2049, 300], [1 + i * 37 % 500 for i in range(130)]], ids=["few", "launches"])
def test_stochastic_rounding_is_that_of_the_cpu_to_the_bit(sizes):
    """Betas of 0 take the moments from the gradient alone, so that all arithmetic before the rounding is the same."""
    settings = PLAIN._replace(beta1=0.0, beta2=0.0)
    ours, expected = draw(sizes), draw(sizes)
    keys = [tensor_key(1, 2, place) for place in range(len(sizes))]
    firsts = [2**32 - 100] * len(sizes)
    run(ours, settings, keys, firsts)
    adamw_reference_(*expected.lists(), settings, keys, firsts)
    for a, b in zip(ours.m + ours.v, expected.m + expected.v, strict=True):
        assert torch.equal(bits(a), bits(b))


def test_random_bits_of_the_reference_are_those_of_the_cpu():
    x = torch.empty(70_000)
    expected = random_bits(tensor_key(1, 2, 3), 2**32 - 100, x)
    assert torch.equal(random_bits(tensor_key(1, 2, 3), 2**32 - 100, x.cuda()).cpu(), expected)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_graph_does_not_capture_stochastic_rounding(backend):
    """Each replay would round with the same random bits, toward the same side."""
    parameter = torch.nn.Parameter(torch.ones(100, device="cuda"))
    optimizer = BF16AdamW([parameter], betas=(0.9, 0.999), backend=backend)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with (
        pytest.raises(RuntimeError, match="a CUDA graph would repeat the random bits"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        optimizer.step()


def test_auto_picks_the_kernel():
    picked = [r.backend for r in backends() if r.op == "BF16AdamW" and r.device == "cuda" and r.picked]
    assert picked == ["cuda"]


def test_two_runs_give_the_same_bits():
    results = [draw(), draw()]
    for tensors in results:
        run(tensors, PLAIN)
    for a, b in zip(*(tensors.weights + tensors.m + tensors.v for tensors in results), strict=True):
        assert torch.equal(a, b)


def test_steps_do_not_wait_for_the_gpu_and_agree_with_the_cpu():
    torch.manual_seed(0)
    on_cpu = torch.nn.Sequential(torch.nn.Linear(37, 65), torch.nn.Linear(65, 3))
    on_gpu = copy.deepcopy(on_cpu).cuda()
    gradients = [[torch.randn_like(p) for p in on_cpu.parameters()] for _ in range(3)]
    optimizers = [BF16AdamW(model.parameters(), lr=1e-2, bias_correction=True) for model in (on_cpu, on_gpu)]
    for step in gradients:
        for parameter, gradient in zip(on_cpu.parameters(), step, strict=True):
            parameter.grad = gradient
        for parameter, gradient in zip(on_gpu.parameters(), step, strict=True):
            parameter.grad = gradient.cuda()
        optimizers[0].step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            optimizers[1].step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for on_host, on_device in zip(on_cpu.parameters(), on_gpu.parameters(), strict=True):
        torch.testing.assert_close(on_device.cpu(), on_host, rtol=1e-5, atol=1e-6)


def test_a_graph_holds_a_step():
    tensors = draw(SIZES)
    on_device, expected = tensors.copy("cuda"), tensors.copy()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        adamw_native_(*on_device.lists(), PLAIN)
    for _ in range(2):
        graph.replay()
        run(expected, PLAIN)
    for result, other in zip(on_device.weights, expected.weights, strict=True):
        assert torch.equal(result.cpu(), other)
