from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from reserve_kernels import bias_quick_gelu, native, triton_support
from reserve_kernels.quick_gelu import availability, reference
from tests.helpers.ranks import run_ranks
from tests.kernels.quick_gelu_cases import compare, make_inputs, output_and_gradients, rounded

CPU = torch.device("cpu")
every_backend = pytest.mark.parametrize(
    "backend",
    [
        pytest.param("native", marks=pytest.mark.skipif(native.cpu_unavailable() is not None, reason="not built")),
        "reference",
    ],
)


def plain(x, bias):
    z = x if bias is None else x + bias
    return z * torch.sigmoid(1.702 * z)


@pytest.mark.parametrize("shape", [(37, 64), (3, 5, 31), (9,)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_reference_in_float64_is_the_definition(shape, with_bias):
    inputs = make_inputs(shape, with_bias)
    leaves = [t.clone().requires_grad_() for t in inputs[:2] if t is not None]
    expected = plain(leaves[0], leaves[1] if with_bias else None)
    gradients = torch.autograd.grad(expected, leaves, inputs[2])
    for out, exact in zip(
        output_and_gradients(inputs, torch.float64, "reference"), (expected, *gradients), strict=True
    ):
        torch.testing.assert_close(out, exact, rtol=1e-13, atol=1e-13)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 64), (37, 31), (3, 5, 768), (130, 1), (241, 640), (12,), (70, 1037)])
def test_outputs_and_gradients_match_float64(backend, dtype, shape):
    compare(backend, make_inputs(shape), dtype)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(37, 31), (2, 3, 64), ()])
def test_without_a_bias(backend, dtype, shape):
    compare(backend, make_inputs(shape, bias=False), dtype)


@every_backend
def test_a_float32_bias_keeps_its_digits(backend):
    inputs = make_inputs((33, 96))
    compare(backend, inputs, torch.bfloat16, bias_dtype=torch.float32)
    # Sums of the gradient before it is rounded.
    found = output_and_gradients(inputs, torch.bfloat16, backend, torch.float32)[2]
    exact = output_and_gradients(rounded(inputs, torch.bfloat16, torch.float32), torch.float64, "reference")[2]
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_run_in_pytorch(dtype):
    compare("auto", make_inputs(), dtype)
    compare("auto", make_inputs(), dtype, bias_dtype=torch.float32)


@pytest.mark.parametrize(("size", "threads"), [(1, 1), (64, 1), (64, 3), (1 << 20, 1)])
def test_pieces_of_any_size_match_float64(monkeypatch, size, threads):
    monkeypatch.setattr(reference, "CPU_PIECE", size)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    compare("reference", make_inputs((41, 31)), torch.float32)


@every_backend
def test_two_runs_give_the_same_bits(backend):
    runs = [output_and_gradients(make_inputs((200, 1000)), torch.float32, backend) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@every_backend
@pytest.mark.parametrize("shape", [(0, 64), (5, 0), (0,), (2, 0, 3)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_empty_tensors(backend, shape, with_bias):
    out, grad_x, *grad_bias = output_and_gradients(make_inputs(shape, with_bias), torch.float32, backend)
    assert out.shape == grad_x.shape == shape
    assert [g.tolist() for g in grad_bias] == [[0.0] * shape[-1]] * with_bias


@every_backend
def test_strides_do_not_matter(backend):
    x, bias, grad = (t.float() for t in make_inputs((6, 10, 8)))
    expected = output_and_gradients((x, bias, grad), torch.float32, backend)
    strided = x.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    wide = torch.stack((bias, bias), 1)[:, 0].requires_grad_()
    assert not strided.is_contiguous()
    assert not wide.is_contiguous()
    out = bias_quick_gelu(strided, wide, backend=backend)
    assert out.is_contiguous()
    gradients = torch.autograd.grad(out, (strided, wide), grad.transpose(0, 1).contiguous().transpose(0, 1))
    for found, wanted in zip((out, *gradients), expected, strict=True):
        assert torch.equal(found, wanted)


@every_backend
def test_an_expanded_gradient(backend):
    x, bias, _ = (t.float() for t in make_inputs())
    x.requires_grad_()
    summed = torch.autograd.grad(bias_quick_gelu(x, bias, backend=backend).sum(), x)
    given = torch.autograd.grad(bias_quick_gelu(x, bias, backend=backend), x, torch.ones_like(x))
    assert torch.equal(*summed, *given)


@every_backend
@pytest.mark.parametrize("wanted", [0, 1])
def test_one_gradient_alone_equals_that_of_both(backend, wanted):
    inputs = make_inputs()
    tensors = [t.float() for t in inputs[:2]]
    tensors[wanted].requires_grad_()
    bias_quick_gelu(*tensors, backend=backend).backward(inputs[2].float())
    assert torch.equal(tensors[wanted].grad, output_and_gradients(inputs, torch.float32, backend)[1 + wanted])
    assert tensors[1 - wanted].grad is None


@every_backend
def test_tails_and_numbers_that_are_not_finite(backend):
    inf = torch.inf
    x = torch.tensor([3e38, -3e38, 100.0, -100.0, -51.5, inf, -inf, torch.nan], requires_grad=True)
    out = bias_quick_gelu(x, torch.zeros(8), backend=backend)
    (grad,) = torch.autograd.grad(out.sum(), x)
    # -inf times a sigmoid of 0, as PyTorch computes it.
    torch.testing.assert_close(out, plain(x, None), equal_nan=True, rtol=1e-6, atol=1e-36)
    torch.testing.assert_close(grad[:5], torch.tensor([1.0, 0, 1, 0, 0]), rtol=0, atol=1e-36)
    assert grad[5:].isnan().all()


def test_only_the_inputs_are_saved():
    x, bias = torch.randn(30, 64, requires_grad=True), torch.randn(64, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        bias_quick_gelu(x, bias)
    assert {t.data_ptr() for t in saved} == {x.data_ptr(), bias.data_ptr()}


@pytest.mark.parametrize("with_bias", [True, False])
def test_double_backward_is_refused(with_bias):
    x, bias, grad = make_inputs(bias=with_bias)
    x.requires_grad_()
    (first,) = torch.autograd.grad(bias_quick_gelu(x, bias), x, grad, create_graph=True)
    with pytest.raises(RuntimeError, match="bias_quick_gelu has no double backward"):
        first.sum().backward()


@every_backend
@pytest.mark.parametrize("with_bias", [True, False])
def test_opcheck(backend, with_bias):
    x, bias, grad = (None if t is None else t.float() for t in make_inputs((7, 12), with_bias))
    x.requires_grad_()
    torch.library.opcheck(torch.ops.reserve_kernels.bias_quick_gelu, (x, bias, backend))
    backward = torch.ops.reserve_kernels.bias_quick_gelu_backward
    torch.library.opcheck(backward, (grad, x.detach(), bias, backend))


@every_backend
def test_compiles_once_for_all_numbers_of_rows(backend):
    bias = torch.randn(24)
    compilations = []

    def count(graph, example_inputs):
        compilations.append(graph)
        return graph.forward

    def loss(x, bias):
        return bias_quick_gelu(2 * x, bias, backend=backend).sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=count)
    for rows in (5, 7, 90):
        x = torch.randn(rows, 24)
        torch.testing.assert_close(compiled(x, bias), loss(x, bias))
    assert len(compilations) == 1


@every_backend
def test_compiled_gradients_equal_the_eager_ones(backend):
    x, bias, _ = (t.float() for t in make_inputs((9, 16)))
    leaves = [[x.clone().requires_grad_(), bias.clone().requires_grad_()] for _ in range(2)]

    def loss(x, bias):
        return (bias_quick_gelu(2 * x, bias, backend=backend) * 3).sum()

    torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves[0]).backward()
    loss(*leaves[1]).backward()
    for a, b in zip(*leaves, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_end_of_a_linear_layer_under_autocast():
    """x is bfloat16, the bias and its gradient are float32, and nothing is rounded between them."""
    weight, bias = torch.randn(96, 64, requires_grad=True), torch.randn(96, requires_grad=True)
    x = torch.randn(50, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        product = F.linear(x, weight)
        out = bias_quick_gelu(product, bias)
    assert product.dtype == out.dtype == torch.bfloat16
    expected = plain(product.float(), bias)
    assert ((out.float() - expected).abs() <= 2.0**-8 * expected.abs()).all()
    gradients = torch.autograd.grad(out.float().sum(), (x, weight, bias))
    assert [g.dtype for g in gradients] == [torch.float32] * 3


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(torch.randn(9, 6)), torch.nn.Parameter(torch.randn(9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return bias_quick_gelu(F.linear(x, self.weight), self.bias)


def check_as_one_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        check_gradients(rank)
    finally:
        dist.destroy_process_group()


def check_gradients(rank: int) -> None:
    """Its own function, so that no wrapped model outlives the process group; see tests/train/test_train_step.py."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6)
    whole = Layer()
    sharded, replicated = Layer(), Layer()
    for model in (sharded, replicated):
        model.load_state_dict(whole.state_dict())
    fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
    (sum(whole(part).square().sum() for part in x) / 2).backward()
    for model in (sharded, DistributedDataParallel(replicated)):
        model(x[rank]).square().sum().backward()
    for expected, one, other in zip(whole.parameters(), sharded.parameters(), replicated.parameters(), strict=True):
        torch.testing.assert_close(one.grad.full_tensor(), expected.grad)
        torch.testing.assert_close(other.grad, expected.grad)


def test_sharded_and_replicated_parameters_get_the_gradients_of_one_process(tmp_path):
    run_ranks(check_as_one_process, tmp_path)


X = torch.zeros(4, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], None), TypeError, "x must be a torch.Tensor; got list"),
        ((X.int(), None), TypeError, "x must have dtype float16, bfloat16, float32, float64; got int32"),
        ((X, 0.5), TypeError, "bias must be a torch.Tensor; got float"),
        ((X.bfloat16(), X[0].half()), TypeError, "bias must have dtype bfloat16, float32; got float16"),
        ((X, X[0].double()), TypeError, "bias must have dtype float32; got float64"),
        ((X, X[0, :7]), ValueError, r"bias must be \[features\] with x's 8 features; got shape \(7,\)"),
        ((X, X), ValueError, r"bias must be \[features\] with x's 8 features; got shape \(4, 8\)"),
        ((X[0, 0], X[0, :1]), ValueError, r"x must be \[..., features\] with a bias; got a scalar"),
        ((X, X[0].to("meta")), ValueError, "bias must be on x's device cpu; got meta"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        bias_quick_gelu(*arguments)


@pytest.mark.parametrize(
    ("name", "dtype", "reason"),
    [
        ("triton", torch.float32, "it needs a CUDA device"),
        ("triton", torch.float64, "it computes in float32"),
        ("native", torch.float16, "it takes float32 and bfloat16 only"),
    ],
)
def test_a_backend_that_cannot_run_says_why(monkeypatch, name, dtype, reason):
    monkeypatch.setattr(triton_support, "TRITON_INSTALLED", True)
    with pytest.raises(RuntimeError, match=f"backend '{name}' cannot run on cpu with {dtype}: {reason}"):
        bias_quick_gelu(X.to(dtype), backend=name)


def test_reasons_on_other_devices(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=7, minor=5))
    monkeypatch.setattr(triton_support, "TRITON_INSTALLED", True)
    assert availability.triton_unavailable(cuda, torch.float16) == (
        "it needs compute capability 8.0; this device has 7.5"
    )
    assert availability.native_unavailable(cuda, torch.float32) == "it runs on the CPU only"
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=8))
    monkeypatch.setattr(triton_support, "_import_error", lambda: None)
    assert availability.triton_unavailable(cuda, torch.float16) is None
    monkeypatch.setattr(triton_support, "_import_error", lambda: "broken")
    assert availability.triton_unavailable(cuda, torch.float16) == "broken"
    monkeypatch.setattr(triton_support, "TRITON_INSTALLED", False)
    assert availability.triton_unavailable(cuda, torch.float16) == "triton is not installed"


@pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))
def test_auto_picks_the_native_passes_on_the_cpu():
    for dtype in (torch.float32, torch.bfloat16):
        assert availability.BACKENDS.choose("auto", CPU, dtype).name == "native"
