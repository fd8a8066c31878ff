"""bias_quick_gelu on a CUDA device: what the interpreter and compilation cannot test."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from reserve_kernels import backends, bias_quick_gelu
from tests.kernels.quick_gelu_cases import compare, make_inputs, output_and_gradients

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 64), (37, 31), (5, 241, 3072), (1000, 4096), (513, 1037), (4099, 1)])
def test_outputs_and_gradients_match_float64(dtype, shape):
    compare("triton", make_inputs(shape), dtype, device="cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_float32_bias_keeps_its_digits(dtype):
    compare("triton", make_inputs((3001, 768)), dtype, bias_dtype=torch.float32, device="cuda")


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_a_bias(dtype):
    compare("triton", make_inputs((517, 96), bias=False), dtype, device="cuda")


@pytest.mark.parametrize("dtype", DTYPES)
def test_auto_picks_triton(dtype):
    picked = [row.backend for row in backends(dtype) if row.op == "bias_quick_gelu" and row.picked]
    assert picked[-1] == "triton"


def test_two_runs_give_the_same_bits():
    inputs = make_inputs((4001, 3072))
    runs = [output_and_gradients(inputs, torch.bfloat16, "triton", torch.float32, "cuda") for _ in range(3)]
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))


def test_more_than_2_to_the_31_elements():
    x = torch.zeros((1 << 19) + 1, 4096, dtype=torch.float16, device="cuda")
    x[-1] = 1.0
    x.requires_grad_()
    bias = torch.zeros(4096, device="cuda", requires_grad=True)
    out = bias_quick_gelu(x, bias, backend="triton")
    small = bias_quick_gelu(x[-1:].detach(), bias, backend="reference")
    torch.testing.assert_close(out[-1:], small)
    assert not out[:-1].any()
    grad_x, grad_bias = torch.autograd.grad(out, (x, bias), torch.ones_like(out))
    assert (grad_x[:-1] == 0.5).all()
    assert (grad_x[-1] > 1).all()
    # Half a million rows whose gradient is 1/2, and one of about 1.1.
    torch.testing.assert_close(grad_bias, torch.full_like(grad_bias, (1 << 18) + 1.1), rtol=1e-6, atol=0)


def test_the_host_never_waits():
    x, bias, grad = (t.to("cuda", torch.bfloat16) for t in make_inputs((300, 256)))
    x.requires_grad_()
    bias = bias.float().requires_grad_()
    bias_quick_gelu(x, bias).backward(grad)
    torch.cuda.set_sync_debug_mode("error")
    try:
        bias_quick_gelu(x, bias).backward(grad)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_end_of_a_linear_layer_under_autocast():
    weight, bias = (torch.randn(shape, device="cuda", requires_grad=True) for shape in ((96, 64), (96,)))
    x = torch.randn(50, 64, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        out = bias_quick_gelu(F.linear(x, weight), bias)
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.float().square().sum(), (x, weight, bias))
    z = F.linear(x.double(), weight.double(), bias.double())
    exact = torch.autograd.grad((z * torch.sigmoid(1.702 * z)).square().sum(), (x, weight, bias))
    for grad, expected in zip(grads, exact, strict=True):
        assert grad.dtype == torch.float32
        assert (grad - expected).norm() < 1e-2 * expected.norm()


def test_compiles_as_one_graph_with_gradient():
    x, bias, _ = (t.to("cuda", torch.bfloat16) for t in make_inputs((200, 96)))
    leaves = [[x.clone().requires_grad_(), bias.float().requires_grad_()] for _ in range(2)]

    def loss(x, bias):
        return bias_quick_gelu(2 * x, bias).float().sum()

    torch.compile(loss, fullgraph=True)(*leaves[0]).backward()
    loss(*leaves[1]).backward()
    for a, b in zip(*leaves, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_backward_keeps_nothing_but_the_input():
    x = torch.randn(4096, 3072, device="cuda", dtype=torch.bfloat16)
    bias = torch.zeros(3072, device="cuda", requires_grad=True)
    before = torch.cuda.memory_allocated()
    out = bias_quick_gelu(x, bias)
    assert torch.cuda.memory_allocated() - before == out.numel() * out.element_size()
