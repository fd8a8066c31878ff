from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist

from reserve_kernels import contrastive_loss
from reserve_kernels.contrastive import blocks, passes
from tests.kernels.contrastive_cases import (
    DRAWS,
    compare_with_float64,
    dense,
    every_backend,
    losses_and_gradients,
    make_inputs,
    on_backend,
)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("pairs", "extra"), [(37, 11), (1, 0), (1, 3), (128, 0), (7, 200)])
def test_losses_and_gradients_match_float64(backend, dtype, pairs, extra):
    compare_with_float64(backend, lambda seed: make_inputs(pairs, extra, dtype=dtype, seed=seed), dtype, ours=DRAWS)


@every_backend
def test_vectors_of_one_number_match_float64(backend):
    compare_with_float64(backend, lambda seed: make_inputs(dim=1, seed=seed), torch.float32, ours=DRAWS)


@every_backend
@pytest.mark.parametrize("directions", [(1, 1), (1, 0), (0, 1)])
def test_gradients_of_weighted_pairs_match_autograd(backend, directions):
    inputs = {k: v.requires_grad_() for k, v in make_inputs(dtype=torch.float64).items()}
    log_scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 37, dtype=torch.float64) * torch.tensor(directions)[:, None]
    grads = []
    for run in (lambda **a: contrastive_loss(**a, backend=backend), dense):
        _, *losses = run(**inputs, log_scale=log_scale)
        # An unused direction is absent, not multiplied by zero.
        total = sum((w * loss).sum() for w, loss, used in zip(weights, losses, directions, strict=True) if used)
        grads.append(
            torch.autograd.grad(total, [*inputs.values(), log_scale], allow_unused=True, materialize_grads=True)
        )
    for out, expected in zip(*grads, strict=True):
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)


@every_backend
@pytest.mark.parametrize("wanted", ["x", "y", "x_extra", "y_extra", "log_scale"])
def test_one_gradient_alone_equals_that_among_all(backend, wanted):
    inputs = make_inputs() | {"log_scale": torch.tensor(1.3)}
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    expected = torch.autograd.grad(contrastive_loss(**leaves, backend=backend).loss, leaves[wanted])[0]
    alone = inputs[wanted].clone().requires_grad_()
    contrastive_loss(**(inputs | {wanted: alone}), backend=backend).loss.backward()
    assert torch.equal(alone.grad, expected)


@every_backend
def test_two_calls_in_one_graph_add_up(backend):
    inputs = make_inputs()
    x, y = inputs["x"].requires_grad_(), inputs["y"].requires_grad_()
    both = contrastive_loss(x, y, 1.0, backend=backend).loss + contrastive_loss(y, x, 2.0, backend=backend).loss
    parts = [contrastive_loss(*sides, backend=backend).loss for sides in ((x, y, 1.0), (y, x, 2.0))]
    expected = sum(torch.autograd.grad(part, x)[0] for part in parts)
    torch.testing.assert_close(torch.autograd.grad(both, x)[0], expected)


@every_backend
def test_empty_extras_are_as_none(backend):
    inputs = {k: v.requires_grad_() for k, v in make_inputs(5, 0).items()}
    out = contrastive_loss(**inputs, log_scale=1.0, backend=backend)
    grads = torch.autograd.grad(out.loss, inputs.values())
    assert torch.equal(out.x_to_y, contrastive_loss(inputs["x"], inputs["y"], 1.0, backend=backend).x_to_y)
    assert not any(grad.isnan().any() for grad in grads)


@pytest.mark.parametrize(
    "log_scale", [torch.tensor([[1.0]]), torch.tensor(1.0).double(), torch.tensor(1), np.float32(1), 1]
)
def test_log_scale_may_be_any_number(log_scale):
    inputs = make_inputs()
    assert torch.equal(
        contrastive_loss(**inputs, log_scale=log_scale).loss, contrastive_loss(**inputs, log_scale=1.0).loss
    )


@every_backend
@pytest.mark.parametrize("pairs", [37, 300])
def test_the_backward_pass_can_run_again(backend, pairs):
    """Also where exp of the logits is stored, from 2^16 of them on."""
    inputs = {k: v.requires_grad_() for k, v in make_inputs(pairs, 11, 8).items()}
    loss = contrastive_loss(**inputs, log_scale=1.3, backend=backend).loss
    first, second = (torch.autograd.grad(loss, inputs.values(), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_backend
def test_two_runs_give_the_same_bits(backend):
    runs = [losses_and_gradients(on_backend(backend), make_inputs(600, 40, 24), torch.float32) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("backend", ["dense", "chunked"])
def test_many_blocks_equal_one(monkeypatch, backend):
    inputs = make_inputs(200, 30, dtype=torch.float64)
    whole = contrastive_loss(**inputs, log_scale=1.0, backend=backend)
    monkeypatch.setattr(passes, "BLOCK_BYTES", 1)
    monkeypatch.setattr(blocks, "STORED_BLOCK_BYTES", 1)
    assert torch.allclose(contrastive_loss(**inputs, log_scale=1.0, backend=backend).x_to_y, whole.x_to_y, rtol=1e-12)


def test_no_pairs_cost_nothing():
    inputs = {k: v.requires_grad_() for k, v in make_inputs(0, 6).items()}
    out = contrastive_loss(**inputs, log_scale=1.0)
    assert out.loss == 0
    assert out.x_to_y.shape == (0,)
    out.loss.backward()
    assert (inputs["y_extra"].grad == 0).all()


@every_backend
def test_log_scale_is_clamped_at_ln_100(backend):
    inputs = make_inputs()
    scale = torch.tensor(9.0, requires_grad=True)
    out = contrastive_loss(**inputs, log_scale=scale, backend=backend)
    assert out.loss == contrastive_loss(**inputs, log_scale=math.log(100.0), backend=backend).loss
    assert torch.autograd.grad(out.loss, scale)[0] == 0


@every_backend
@pytest.mark.parametrize(("largest", "loss_scale"), [(1e-3, 1e-4), (1.0, 1e-4), (60_000.0, 1.0), (60_000.0, 2.0**31)])
def test_float16_holds_gradients_of_scaled_losses(backend, largest, loss_scale):
    """A gradient may overflow or underflow float16 before it is normalised, and fit afterwards."""
    inputs = {k: (v.clamp(-3, 3) / 3 * largest).half() for k, v in make_inputs().items()}
    gradients = []
    for dtype in (torch.float16, torch.float64):
        leaves = {k: v.to(dtype).requires_grad_() for k, v in inputs.items()}
        loss = contrastive_loss(**leaves, log_scale=1.3, backend=backend).loss
        gradients.append(torch.autograd.grad(loss * loss_scale, leaves.values()))
    for ours, truth in zip(*gradients, strict=True):
        # The vectors are rounded to float16 after they are normalised; the smallest numbers of float16 are 6e-8 apart.
        torch.testing.assert_close(ours.double(), truth, rtol=0, atol=0.01 * truth.abs().max().item() + 6e-8)


@every_backend
@pytest.mark.parametrize("scale", [0.0, 1e-20, 2e-4, 1e15, 1e25, 1e38])
def test_extreme_norms_match_float64(backend, scale):
    def make(seed):
        return {k: v.clamp(-3, 3) * scale for k, v in make_inputs(seed=seed).items()}

    compare_with_float64(backend, make, torch.float32, ours=DRAWS)


@pytest.mark.parametrize("backend", ["dense", "chunked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("log_scale", [1.3, math.log(100.0) - 1e-3])
def test_large_problems_match_float64(monkeypatch, backend, dtype, log_scale):
    """One exp for both directions if the logits are small, and a maximum in each direction otherwise; many blocks."""
    monkeypatch.setattr(passes, "WORTH_SHARING", 1)
    monkeypatch.setattr(passes, "BLOCK_BYTES", 1)
    monkeypatch.setattr(blocks, "STORED_BLOCK_BYTES", 1)
    compare_with_float64(
        backend, lambda seed: make_inputs(100, 150, dtype=dtype, seed=seed), dtype, log_scale, ours=DRAWS
    )


@pytest.mark.parametrize("worth_sharing", [1, 1 << 40])
def test_many_blocks_round_a_logsumexp_once(monkeypatch, worth_sharing):
    """Here there are 2,500 blocks with the same logits. A rounding for each would show."""
    monkeypatch.setattr(passes, "WORTH_SHARING", worth_sharing)
    monkeypatch.setattr(passes, "BLOCK_BYTES", 1)
    inputs = {name: torch.ones(rows, 1) for name, rows in [("x", 1), ("y", 1), ("y_extra", 40_000)]}
    inputs["log_scale"] = torch.tensor(1.3)
    out, truth = (
        contrastive_loss(**{k: v.to(dtype) for k, v in inputs.items()}, backend=backend).x_to_y.double()
        for dtype, backend in [(torch.float32, "chunked"), (torch.float64, "reference")]
    )
    # Between two float32 numbers near the logsumexp, which is 14.3, lie 2^-20.
    assert abs(out - truth) <= 2 * 2**-20


def test_a_shared_exp_costs_confident_pairs_less_than_a_logits_rounding(monkeypatch):
    monkeypatch.setattr(passes, "WORTH_SHARING", 1)
    x = torch.eye(64) * 3
    out = contrastive_loss(x, x, 3.9)
    assert (out.x_to_y - dense(x.double(), x.double(), torch.tensor(3.9).double())[1]).abs().max() < 50 * 2**-23


def test_non_contiguous_inputs_equal_contiguous_ones():
    inputs = make_inputs()
    transposed = {k: v.T.contiguous().T.requires_grad_() for k, v in inputs.items()}
    assert not any(v.is_contiguous() for v in transposed.values())
    out, expected = contrastive_loss(**transposed, log_scale=1.0), contrastive_loss(**inputs, log_scale=1.0)
    out.loss.backward()
    torch.testing.assert_close(out.x_to_y, expected.x_to_y)
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    contrastive_loss(**leaves, log_scale=1.0).loss.backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(transposed[name].grad, leaf.grad)


def test_infinity_stays_visible():
    inputs = make_inputs()
    inputs["y"][3, 5] = math.inf
    assert contrastive_loss(**inputs, log_scale=1.0).loss.isnan()


def test_nan_stays_visible():
    inputs = make_inputs()
    inputs["x"][3, 5] = math.nan
    out = contrastive_loss(**inputs, log_scale=1.0)
    assert out.loss.isnan()
    assert out.x_to_y.isnan().nonzero().flatten().tolist() == [3]


def test_duplicated_targets_share_the_mass():
    x = torch.randn(4, 64)
    out = contrastive_loss(x, torch.ones(4, 64), 1.0)
    torch.testing.assert_close(out.x_to_y, torch.full((4,), math.log(4.0)))


@every_backend
@pytest.mark.parametrize("both", [True, False])
def test_opcheck_of_the_logsumexp(backend, both):
    inputs = make_inputs(7, 4)
    y = inputs["y" if both else "y_extra"]
    log_scale = torch.tensor(1.0, requires_grad=True)
    arguments = (inputs["x"].requires_grad_(), y.requires_grad_(), log_scale, both, backend)
    torch.library.opcheck(torch.ops.reserve_kernels.contrastive_logsumexp, arguments)


@every_backend
def test_compiles_as_one_graph_with_gradients(backend):
    inputs = make_inputs(9, 5) | {"log_scale": torch.tensor(1.0)}

    def loss(*values):
        return contrastive_loss(**dict(zip(inputs, values, strict=True)), backend=backend).loss

    leaves, others = ([v.clone().requires_grad_() for v in inputs.values()] for _ in range(2))
    torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves).backward()
    loss(*others).backward()
    for leaf, other in zip(leaves, others, strict=True):
        torch.testing.assert_close(leaf.grad, other.grad)


@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_what_is_compiled_chooses_by_the_budget_too(budget):
    inputs = make_inputs(9, 5)

    def loss(x):
        return contrastive_loss(**(inputs | {"x": x}), log_scale=1.0, logits_budget=budget).loss

    x, y = (inputs["x"].clone().requires_grad_() for _ in range(2))
    torch.compile(loss, fullgraph=True)(x).backward()
    loss(y).backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("backend", ["dense", "chunked"])
@pytest.mark.parametrize("log_scale", [1.3, math.log(100.0) - 1e-3])
def test_without_the_native_library_it_runs_in_pytorch(monkeypatch, backend, log_scale):
    monkeypatch.setattr(blocks, "unavailable", lambda device, dtype: "not built")
    monkeypatch.setattr(passes, "WORTH_SHARING", 1)
    assert type(blocks.passes_for(torch.ones(1))) is passes.Passes
    compare_with_float64(backend, lambda seed: make_inputs(100, 150, seed=seed), torch.float32, log_scale, ours=DRAWS)


BAD = {
    "x type": ({"x": 3}, TypeError, "x must be a torch.Tensor"),
    "x shape": ({"x": torch.randn(3)}, ValueError, r"x must be \[rows, dim\]"),
    "y dtype": ({"y": torch.randn(37, 64).double()}, TypeError, "y must have dtype float32; got float64"),
    "y pairs": ({"y": torch.randn(36, 64)}, ValueError, r"y must pair with x's shape \(37, 64\); got \(36, 64\)"),
    "extra dim": ({"y_extra": torch.randn(3, 32)}, ValueError, "y_extra must have x's dim 64; got 32"),
    "log_scale": ({"log_scale": torch.ones(2)}, ValueError, "log_scale must be a scalar"),
    "log_scale type": ({"log_scale": "1"}, TypeError, "log_scale must be a number or a torch.Tensor; got str"),
    "group type": ({"group": 0}, TypeError, "group must be a torch.distributed.ProcessGroup or None; got int"),
    "logits_budget": ({"logits_budget": -1}, ValueError, "logits_budget must be an integer of at least 0; got -1"),
    "logits_budget type": ({"logits_budget": 1.5}, TypeError, "logits_budget must be an integer of at least 0"),
    "group of others": ({"group": dist.GroupMember.NON_GROUP_MEMBER}, ValueError, "group must contain this process"),
    "kind": ({"kind": "hinge"}, ValueError, "kind must be 'softmax' or 'sigmoid'; got 'hinge'"),
    "exchange": ({"exchange": "tree"}, ValueError, "exchange must be 'gather' or 'ring'; got 'tree'"),
    "bias": ({"bias": 1.0}, ValueError, "bias is for kind='sigmoid'"),
    "bias shape": ({"kind": "sigmoid", "bias": torch.ones(2)}, ValueError, "bias must be a scalar; got shape"),
    "bias type": ({"kind": "sigmoid", "bias": "1"}, TypeError, "bias must be a number or a torch.Tensor; got str"),
    "complex log_scale": ({"log_scale": torch.tensor(1j)}, TypeError, "log_scale must be real; got torch.complex64"),
    "complex bias": ({"kind": "sigmoid", "bias": torch.tensor(1j)}, TypeError, "bias must be real; got torch.complex"),
    "normalize": ({"normalize": 1}, TypeError, "normalize must be True or False; got 1"),
    "max_scale": ({"max_scale": 0.0}, ValueError, "max_scale must be above 0; got 0.0"),
    "max_scale type": ({"max_scale": "100"}, TypeError, "max_scale must be a number; got '100'"),
    "infinite max_scale": ({"max_scale": math.inf}, ValueError, "max_scale must be finite; got inf"),
    "backend": ({"backend": "triton9"}, ValueError, "backend must be 'auto' or one of"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        contrastive_loss(**({**make_inputs(), "log_scale": 1.0} | change))


@every_backend
def test_autocast_does_not_lower_the_logits(backend):
    inputs = {name: value.requires_grad_() for name, value in make_inputs().items()}
    expected = contrastive_loss(**inputs, log_scale=1.0, backend=backend).loss
    expected_grads = torch.autograd.grad(expected, inputs.values())
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(**inputs, log_scale=1.0, backend=backend).loss
        grads = torch.autograd.grad(loss, inputs.values())
    assert torch.equal(loss, expected)
    assert all(torch.equal(a, b) for a, b in zip(grads, expected_grads, strict=True))
