"""contrastive_loss on a CUDA device: what the interpreter and compilation cannot test."""

from __future__ import annotations

import pytest
import torch

from reserve_kernels import Targets, backends, contrastive_loss
from reserve_kernels.contrastive import sigmoid
from tests.kernels import test_contrastive_sigmoid
from tests.kernels.contrastive_cases import compare_with_float64, losses_and_gradients, make_inputs, on_backend
from tests.kernels.numerics import assert_as_good_as_reference
from tests.kernels.test_contrastive_sigmoid import inputs_with_bias
from tests.kernels.test_contrastive_targets import draw_matrix, sparse

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.mark.parametrize("name", ["dense", "triton", "chunked"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("pairs", "extra", "dim"), [(1, 0, 64), (37, 11, 31), (640, 0, 768), (1000, 3001, 768), (513, 77, 1000)]
)
def test_losses_and_gradients_match_float64(name, dtype, pairs, extra, dim):
    compare_with_float64(name, lambda seed: make_inputs(pairs, extra, dim, dtype, seed), dtype, 2.0, "cuda")


@pytest.mark.parametrize("name", ["dense", "triton"])
@pytest.mark.parametrize("library", [True, False])
def test_several_blocks_of_gradients_match_float64(monkeypatch, name, library):
    from reserve_kernels.contrastive import triton

    monkeypatch.setattr(triton, "LIBRARY_LOGITS", library)
    for constant in ("WEIGHT_BYTES", "STORED_WEIGHT_BYTES", "LIBRARY_BLOCK_BYTES"):
        monkeypatch.setattr(triton, constant, 1)
    dtype = torch.bfloat16
    compare_with_float64(name, lambda seed: make_inputs(700, 1500, 256, dtype, seed), dtype, 2.0, "cuda")


def test_one_direction_with_fewer_registers_matches_float64(monkeypatch):
    from reserve_kernels.contrastive import triton

    monkeypatch.setattr(triton, "ONE_DIRECTION", {"num_stages": 3, "maxnreg": 128})
    dtype = torch.bfloat16
    compare_with_float64("triton", lambda seed: make_inputs(300, 700, 256, dtype, seed), dtype, 2.0, "cuda")


def test_auto_picks_dense():
    picked = [row.backend for row in backends(torch.bfloat16) if row.op == "contrastive_loss" and row.picked]
    assert picked[-1] == "dense"


@pytest.mark.parametrize("name", ["dense", "triton"])
def test_two_runs_give_the_same_bits(name):
    inputs = make_inputs(3000, 500, 768, torch.bfloat16)
    runs = [losses_and_gradients(on_backend(name), inputs, torch.bfloat16, 2.0, "cuda") for _ in range(3)]
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("name", ["dense", "triton", "chunked"])
def test_the_host_never_waits(name):
    leaves = {k: v.cuda().requires_grad_() for k, v in make_inputs(300, 40, 64, torch.bfloat16).items()}
    log_scale = torch.tensor(1.0, device="cuda", requires_grad=True)
    contrastive_loss(**leaves, log_scale=log_scale, backend=name).loss.backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        contrastive_loss(**leaves, log_scale=log_scale, backend=name).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["dense", "triton"])
def test_compiles_as_one_graph_with_gradient(name):
    inputs = {k: v.cuda() for k, v in make_inputs(200, 30, 64, torch.bfloat16).items()}
    first = inputs.pop("x")

    def loss(x):
        return contrastive_loss(x, **inputs, log_scale=1.0, backend=name).loss

    x, y = (first.clone().requires_grad_() for _ in range(2))
    torch.compile(loss, fullgraph=True)(x).backward()
    loss(y).backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("backend", ["auto", "chunked"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("block_bytes", [1, 128 << 20])
def test_the_sigmoid_loss_matches_float64(monkeypatch, backend, dtype, block_bytes):
    monkeypatch.setattr(sigmoid, "GPU_BLOCK_BYTES", block_bytes)
    test_contrastive_sigmoid.compare_with_float64(
        backend, lambda seed: inputs_with_bias(300, 77, 72, dtype=dtype, seed=seed), dtype, 2.0, "cuda"
    )


@pytest.mark.parametrize("name", ["dense", "triton", "chunked"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_vectors_as_they_are_match_float64(name, dtype):
    def run_by(backend):
        return lambda **arguments: contrastive_loss(**arguments, normalize=False, max_scale=None, backend=backend)

    inputs = make_inputs(300, 77, 72, dtype)
    runs = (run_by(name), dtype), (run_by("reference"), dtype), (run_by("reference"), torch.float64)
    results = (losses_and_gradients(run, inputs, of, -4.0, "cuda") for run, of in runs)
    for out, plain, truth in zip(*results, strict=True):
        assert_as_good_as_reference(out, truth, plain)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("output", ["loss", "x_to_y"])
def test_targets_equal_those_on_the_cpu_and_the_host_never_waits(monkeypatch, kind, output):
    monkeypatch.setattr(sigmoid, "GPU_BLOCK_BYTES", 1)
    targets, results = sparse(draw_matrix(37 + 11)), []
    for device in ("cpu", "cuda"):
        leaves = [v.to(device, torch.float64).requires_grad_() for v in make_inputs().values()]
        labels = Targets(*(part.to(device) for part in targets))
        arguments = dict(zip(("x", "y", "x_extra", "y_extra"), leaves, strict=True))
        log_scale = torch.tensor(1.0, dtype=torch.float64, device=device)
        torch.cuda.set_sync_debug_mode("error" if device == "cuda" else "default")
        try:
            losses = contrastive_loss(**arguments, log_scale=log_scale, kind=kind, targets=labels)
            used = getattr(losses, output).sum()
            results.append([used, *torch.autograd.grad(used, leaves, allow_unused=True, materialize_grads=True)])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for own, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(own.cpu(), expected)


def test_memory_stays_far_below_all_logits():
    x, y = (torch.randn(16384, 768, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    contrastive_loss(x, y, 1.0, backend="triton").loss.backward()
    # A side scaled 25 MB, a gradient 25 MB, a sum in float32 50 MB, weights 32 MB, the products' workspace 32 MB. The
    # logits alone would be 537 MB.
    assert torch.cuda.max_memory_allocated() - before < 200e6
