from __future__ import annotations

import pytest
import torch

from reserve_kernels import bias_quick_gelu
from reserve_kernels.quick_gelu import triton as launcher
from tests.kernels.quick_gelu_cases import compare, make_inputs, output_and_gradients

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


# Widths below, at and above a block of columns, and ones that no vector divides; a last tile that is partly outside.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 64), (37, 31), (3, 5, 768), (9, 1024), (130, 1), (7, 3072), (5, 1037), (12,)])
def test_outputs_and_gradients_match_float64(dtype, shape):
    compare("triton", make_inputs(shape), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(37, 31), (6, 1024), ()])
def test_without_a_bias(dtype, shape):
    compare("triton", make_inputs(shape, bias=False), dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_float32_bias_keeps_its_digits(dtype):
    inputs = make_inputs((33, 96))
    compare("triton", inputs, dtype, bias_dtype=torch.float32)
    assert output_and_gradients(inputs, dtype, "triton", torch.float32)[2].dtype == torch.float32


# Strips of one tile, of several, and a last strip that is shorter or has no rows.
@pytest.mark.parametrize("programs", [1, 2, 3, 5, 1000])
def test_any_number_of_strips(monkeypatch, programs):
    tile = launcher.Tile(rows=4, columns=64, programs=programs, num_warps=4)
    monkeypatch.setattr(launcher, "FORWARD", tile)
    monkeypatch.setattr(launcher, "BACKWARD", tile)
    compare("triton", make_inputs((41, 64)), torch.float32)
    compare("triton", make_inputs((17, 100)), torch.float32)


def test_the_largest_numbers_give_finite_gradients():
    x = torch.tensor([[3e38, -3e38, 100.0, -100.0]], requires_grad=True)
    out = bias_quick_gelu(x, torch.zeros(4), backend="triton")
    assert out.tolist() == [[x[0, 0].item(), 0.0, 100.0, 0.0]]
    assert torch.autograd.grad(out.sum(), x)[0].tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_two_runs_give_the_same_bits():
    inputs = make_inputs((130, 100))
    runs = [output_and_gradients(inputs, torch.bfloat16, "triton") for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("shape", [(0, 64), (5, 0), (0,)])
def test_empty_tensors(shape):
    out, grad_x, grad_bias = output_and_gradients(make_inputs(shape), torch.float32, "triton")
    assert out.shape == grad_x.shape == shape
    assert grad_bias.tolist() == [0.0] * shape[-1]


def test_opcheck():
    x, bias, _ = (t.float().requires_grad_() for t in make_inputs((7, 12)))
    for arguments in [(x, bias, "triton"), (x, None, "triton")]:
        torch.library.opcheck(torch.ops.reserve_kernels.bias_quick_gelu, arguments)
