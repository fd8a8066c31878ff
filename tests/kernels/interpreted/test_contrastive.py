from __future__ import annotations

import math

import pytest
import torch

from reserve_kernels import contrastive_loss
from reserve_kernels.contrastive import triton as launcher
from tests.kernels.contrastive_cases import compare_with_float64, dense, losses_and_gradients, make_inputs, on_backend
from tests.kernels.numerics import assert_as_good_as_reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TILES = launcher.Tiles(16, 16, 64, num_warps=4, num_stages=1)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Few rows then make several tiles: the interpreter takes about 10 ms for each row that it scales."""
    monkeypatch.setattr(launcher, "_tiles_for", lambda x: TILES)


every_backend = pytest.mark.parametrize("backend", ["triton", "dense"], indirect=True)
every_variant = pytest.mark.parametrize("backend", ["triton", "dense", "dense by library"], indirect=True)


@pytest.fixture(name="backend")
def _backend(request, monkeypatch):
    """The name of a back end; the variant of "dense" is a constant of the launcher."""
    name, _, variant = request.param.partition(" by ")
    monkeypatch.setattr(launcher, "LIBRARY_LOGITS", bool(variant))
    return name


def compare(backend, make, dtype, log_scale=1.3):
    compare_with_float64(backend, make, dtype, log_scale)


# One tile and several; odd sizes; a dimension that blocks do not divide; candidates fewer and more than pairs.
@every_backend
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("pairs", "extra", "dim"), [(1, 0, 64), (13, 11, 64), (17, 22, 72), (22, 0, 31), (9, 3, 3)])
def test_losses_and_gradients_match_float64(backend, dtype, pairs, extra, dim):
    compare(backend, lambda seed: make_inputs(pairs, extra, dim, dtype, seed), dtype)


@every_variant
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_temperature(backend, dtype):
    compare(backend, lambda seed: make_inputs(20, 6, 64, dtype, seed), dtype, log_scale=math.log(100.0) - 1e-3)


@every_variant
@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_as_they_are_without_a_bound_of_the_temperature(backend, dtype):
    def run_by(name):
        options = {"normalize": False, "max_scale": None, "backend": name}
        return lambda **arguments: contrastive_loss(**arguments, **options)

    inputs = make_inputs(17, 22, 72, dtype)
    runs = (run_by(backend), dtype), (run_by("reference"), dtype), (run_by("reference"), torch.float64)
    results = (losses_and_gradients(run, inputs, of, -4.0) for run, of in runs)
    for out, plain, truth in zip(*results, strict=True):
        assert_as_good_as_reference(out, truth, plain)


@every_variant
def test_a_candidate_far_from_all(backend):
    """Its logits are far below the logsumexps of their rows, and decide the softmax of its column. Stored or computed
    again, they give it about the same error.
    """
    common = torch.full((64,), 4.0, dtype=torch.float16)
    inputs = {name: make_inputs(20, 0, 64, torch.float16)[name] + common for name in ("x", "y")}
    inputs["y"][3] = -common

    def gradients(run, dtype):
        leaves = {name: value.to(dtype).requires_grad_() for name, value in inputs.items()}
        out = run(**leaves, log_scale=torch.tensor(4.6, dtype=torch.float64))
        return [grad.double() for grad in torch.autograd.grad(out[2].sum(), leaves.values())]

    exact = gradients(dense, torch.float64)
    errors = [
        [(grad - truth).norm() for grad, truth in zip(gradients(on_backend(name), torch.float16), exact, strict=True)]
        for name in (backend, "triton")
    ]
    for stored, computed_again in zip(*errors, strict=True):
        assert stored <= 1.2 * computed_again


@every_variant
def test_gradients_of_many_blocks(backend, monkeypatch):
    library = launcher.LIBRARY_LOGITS
    monkeypatch.undo()  # blocks have 128 rows at least: with the launcher's own tiles
    monkeypatch.setattr(launcher, "LIBRARY_LOGITS", library)
    for name in ("WEIGHT_BYTES", "STORED_WEIGHT_BYTES", "LIBRARY_BLOCK_BYTES"):
        monkeypatch.setattr(launcher, name, 1)
    compare(backend, lambda seed: make_inputs(130, 3, 32, torch.bfloat16, seed), torch.bfloat16)


@every_backend
def test_gradients_below_half_precisions_smallest_number_survive(backend):
    inputs = {k: v.requires_grad_() for k, v in make_inputs(8, 0, 64, torch.float16).items()}
    loss = contrastive_loss(inputs["x"], inputs["y"], 1.0, backend=backend).loss
    small = torch.autograd.grad(loss * 1e-6, inputs["x"], retain_graph=True)[0]
    expected = torch.autograd.grad(loss, inputs["x"])[0]
    assert (small.double() * 1e6 - expected.double()).abs().max() < 0.1


def test_unlikely_candidates_get_a_gradient_in_float16():
    # The last one's softmax, 5e-9, is below float16's smallest number; its gradient is not, for it is a short vector.
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float16)
    candidates = torch.tensor([[1.0, 0.0], [0.00856, 0.00517]], dtype=torch.float16)
    grads = []
    for dtype, run in [(torch.float16, contrastive_loss), (torch.float64, dense)]:
        extra = candidates.to(dtype).requires_grad_()
        out = run(x.to(dtype), x.to(dtype), torch.tensor(math.log(100.0), dtype=torch.float64), y_extra=extra)
        grads.append(torch.autograd.grad(out[1].sum(), extra)[0][1].double())
    torch.testing.assert_close(*grads, rtol=0.1, atol=1e-6)


@every_backend
@pytest.mark.parametrize("factor", [0.0, 1e-40, 1e30])
def test_gradients_scale_with_the_gradient_of_the_loss(backend, factor):
    inputs = {k: v.requires_grad_() for k, v in make_inputs(8, 3).items()}
    loss = contrastive_loss(**inputs, log_scale=1.0, backend=backend).loss
    one = torch.autograd.grad(loss, inputs["x"], retain_graph=True)[0]
    scaled = torch.autograd.grad(loss, inputs["x"], torch.tensor(factor))[0]
    # A subnormal gradient has few digits.
    torch.testing.assert_close(scaled, one * factor, rtol=1e-5, atol=1e-43)


@every_backend
def test_empty_extras_are_as_none(backend):
    inputs = {k: v.requires_grad_() for k, v in make_inputs(5, 0).items()}
    out = contrastive_loss(**inputs, log_scale=1.0, backend=backend)
    grads = torch.autograd.grad(out.loss, inputs.values())
    assert torch.equal(out.x_to_y, contrastive_loss(inputs["x"], inputs["y"], 1.0, backend=backend).x_to_y)
    assert not any(grad.isnan().any() for grad in grads)


@every_backend
@pytest.mark.parametrize("scale", [0.0, 1e-20, 2e-4, 1e25])
def test_extreme_norms_match_float64(backend, scale):
    compare(backend, lambda seed: {k: v * scale for k, v in make_inputs(20, 5, seed=seed).items()}, torch.float32)


@every_backend
def test_nan_stays_visible(backend):
    inputs = make_inputs()
    inputs["x"][3, 5] = math.nan
    out = contrastive_loss(**inputs, log_scale=1.0, backend=backend)
    assert out.x_to_y.isnan().nonzero().flatten().tolist() == [3]
    assert out.y_to_x.isnan().all()
    assert contrastive_loss(**make_inputs(), log_scale=math.nan, backend=backend).x_to_y.isnan().all()


@every_backend
def test_no_pairs_cost_nothing(backend):
    inputs = {k: v.requires_grad_() for k, v in make_inputs(0, 6).items()}
    out = contrastive_loss(**inputs, log_scale=1.0, backend=backend)
    out.loss.backward()
    assert out.loss == 0
    assert (inputs["y_extra"].grad == 0).all()


@every_backend
def test_two_runs_give_the_same_bits(backend):
    inputs = make_inputs(17, 3, dtype=torch.bfloat16)
    runs = [losses_and_gradients(on_backend(backend), inputs, torch.bfloat16) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@every_backend
@pytest.mark.parametrize("both", [True, False])
def test_opcheck_of_the_logsumexp(backend, both):
    inputs = make_inputs(7, 4)
    x, y = inputs["x"].requires_grad_(), inputs["y" if both else "y_extra"].requires_grad_()
    arguments = (x, y, torch.tensor(1.0, requires_grad=True), both, backend)
    torch.library.opcheck(torch.ops.reserve_kernels.contrastive_logsumexp, arguments)


@every_backend
def test_compiles_as_one_graph_with_gradient(backend):
    inputs = make_inputs(9, 5)

    def loss(x):
        return contrastive_loss(**(inputs | {"x": x}), log_scale=1.0, backend=backend).loss

    x, y = (inputs["x"].clone().requires_grad_() for _ in range(2))
    # What the graph is lowered to on a GPU cannot be shown here; that it is one graph can.
    torch.compile(loss, fullgraph=True, backend="aot_eager")(x).backward()
    loss(y).backward()
    torch.testing.assert_close(x.grad, y.grad)
