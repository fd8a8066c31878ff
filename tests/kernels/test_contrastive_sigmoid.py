"""contrastive_loss with kind="sigmoid" in one process."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import logsigmoid

from reserve_kernels import Targets, contrastive_loss
from reserve_kernels.contrastive import passes, sigmoid
from tests.kernels.contrastive_cases import DRAWS, Sizes, losses_and_gradients, make_inputs
from tests.kernels.numerics import assert_as_good_as_reference

every_way = pytest.mark.parametrize("backend", ["auto", "chunked", "reference"])


def inputs_with_bias(*arguments, bias=-2.0, **options):
    inputs = make_inputs(*arguments, **options)
    return inputs | {"bias": torch.tensor(bias, dtype=inputs["x"].dtype)}


def written_out(x, y, log_scale, bias, x_extra=None, y_extra=None, matrix=None):
    """The paper's algorithm 1 on materialised logits. `matrix`: targets of x with y and y_extra."""

    def prepare(v):
        return (v / torch.sqrt(v.square().sum(-1, keepdim=True) + 1e-5)) * torch.exp(log_scale / 2)

    n = len(x)
    candidates = y if y_extra is None else torch.cat([y, y_extra])
    logits = prepare(x) @ prepare(candidates).T + bias
    matrix = torch.eye(n, len(candidates), dtype=logits.dtype, device=x.device) if matrix is None else matrix
    losses = -(matrix * logsigmoid(logits) + (1 - matrix) * logsigmoid(-logits))
    rows, columns, total = losses.sum(1), losses[:, :n].sum(0), losses.sum()
    if x_extra is not None:
        of_extra = -logsigmoid(-(prepare(y) @ prepare(x_extra).T + bias))
        columns, total = columns + of_extra.sum(1), total + of_extra.sum()
    return total / max(n, 1), rows, columns


def ours(backend="auto", **fixed):
    return lambda **arguments: contrastive_loss(kind="sigmoid", backend=backend, **arguments, **fixed)


def compare_with_float64(backend, make, dtype, log_scale=1.3, device="cpu"):
    """Losses and all gradients by the acceptance rule; `make` gives the inputs of a seed."""
    runs = [(written_out, torch.float64), (ours("reference"), dtype), (ours(backend), dtype)]
    truth, plain, out = (
        [losses_and_gradients(run, make(seed), each, log_scale, device) for seed in range(DRAWS)] for run, each in runs
    )
    for place in range(len(out[0])):
        truths, plains, outs = (torch.stack([draw[place] for draw in each]) for each in (truth, plain, out))
        assert_as_good_as_reference(outs, truths, plains)


@every_way
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("pairs", "extra"), [(37, 11), (1, 0), (1, 3), (128, 0), (7, 200)])
def test_losses_and_gradients_match_float64(backend, dtype, pairs, extra):
    compare_with_float64(backend, lambda seed: inputs_with_bias(pairs, extra, dtype=dtype, seed=seed), dtype)


@every_way
@pytest.mark.parametrize(("log_scale", "bias"), [(4.6, -10.0), (4.6, 60.0), (-3.0, -90.0), (2.3, 0.0)])
def test_large_logits_match_float64(backend, log_scale, bias):
    compare_with_float64(
        backend, lambda seed: inputs_with_bias(seed=seed, bias=bias), torch.float32, log_scale=log_scale
    )


@pytest.mark.parametrize("backend", ["auto", "chunked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_many_blocks_and_pieces_match_float64(monkeypatch, backend, dtype):
    monkeypatch.setattr(passes, "BLOCK_BYTES", 1)
    compare_with_float64(backend, lambda seed: inputs_with_bias(100, 150, dtype=dtype, seed=seed), dtype)


@every_way
@pytest.mark.parametrize("outputs", [("x_to_y",), ("y_to_x",), ("x_to_y", "y_to_x"), ("loss", "y_to_x"), ("loss",)])
def test_gradients_of_weighted_pairs_match_autograd(backend, outputs):
    """Only the gradients of `loss` are made in the forward pass."""
    leaves = {k: v.requires_grad_() for k, v in inputs_with_bias(dtype=torch.float64).items()}
    leaves["log_scale"] = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(37, dtype=torch.float64)
    grads = []
    for run in (ours(backend), written_out):
        losses = dict(zip(("loss", "x_to_y", "y_to_x"), run(**leaves), strict=True))
        total = sum((losses[name] * weights).sum() for name in outputs)
        grads.append(torch.autograd.grad(total, leaves.values(), allow_unused=True, materialize_grads=True))
    for out, expected in zip(*grads, strict=True):
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)


@every_way
@pytest.mark.parametrize("wanted", ["x", "y", "x_extra", "y_extra", "log_scale", "bias"])
def test_one_gradient_alone_equals_that_among_all(backend, wanted):
    inputs = inputs_with_bias() | {"log_scale": torch.tensor(1.3)}
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    expected = torch.autograd.grad(ours(backend)(**leaves).loss, leaves[wanted])[0]
    alone = inputs[wanted].clone().requires_grad_()
    ours(backend)(**(inputs | {wanted: alone})).loss.backward()
    assert torch.equal(alone.grad, expected)


@pytest.mark.parametrize("positives", [37, 1])
def test_confident_pairs_keep_their_digits(positives):
    """softplus(l) - l of a large l would be a multiple of a rounding of l."""
    x = torch.eye(64)[:positives] * 5
    targets = Targets(torch.arange(positives + 1), torch.arange(positives))
    for chosen in (None, targets):
        for backend in ("auto", "reference"):
            out = contrastive_loss(x, x, math.log(40.0), kind="sigmoid", bias=-20.0, targets=chosen, backend=backend)
            truth = written_out(x.double(), x.double(), torch.tensor(40.0).double().log(), -20.0)[1]
            torch.testing.assert_close(out.x_to_y.double(), truth, rtol=1e-4, atol=0)


def open_clip_loss():
    """open_clip's module of losses, from its file: the package needs torchvision."""
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        pytest.skip("open_clip is not installed")
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(found.origin).with_name("loss.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("pairs", [1, 37, 300])
def test_vectors_as_they_are_equal_open_clip(kind, pairs):
    module = open_clip_loss()
    generator = torch.Generator().manual_seed(0)
    # 300: more than 2^16 logits, of which the largest decides whether their exp is safe.
    x, y = (torch.randn(pairs, 24, generator=generator) for _ in range(2))
    scale, bias = torch.tensor(0.7), torch.tensor(-1.1)
    results = []
    for own in (True, False):
        leaves = [v.clone().requires_grad_() for v in (x, y, scale, bias)]
        if own:
            options = {"bias": leaves[3]} if kind == "sigmoid" else {}
            loss = contrastive_loss(
                *leaves[:2], leaves[2].log(), kind=kind, normalize=False, max_scale=None, **options
            ).loss
        elif kind == "sigmoid":
            loss = module.SigLipLoss()(*leaves)
        else:
            loss = module.ClipLoss()(*leaves[:3])
        used = leaves if kind == "sigmoid" else leaves[:3]
        results.append([loss, *torch.autograd.grad(loss, used)])
    for out, expected in zip(*results, strict=True):
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["auto", "chunked"])
def test_all_logits_never_exist_at_once(monkeypatch, backend):
    monkeypatch.setattr(passes, "BLOCK_BYTES", 1 << 16)
    x, y, log_scale, bias = torch.randn(600, 8), torch.randn(600, 8), torch.tensor(1.0), torch.tensor(-1.0)
    problem = sigmoid.Problem(x, y, log_scale, bias, sigmoid.Scaling(), paired=True)
    with Sizes() as results:
        if backend == "auto":
            sigmoid.sigmoid_sums_and_gradients(problem, True)
        else:
            sigmoid.sigmoid_sums(problem, True)
            sigmoid.sigmoid_gradients(problem, sigmoid.Upstream(torch.ones(600), torch.ones(600)), torch.float32)
    assert max(results.sizes) <= max((1 << 16) // 4 + 1, x.numel())


def test_only_vectors_are_saved():
    leaves = {k: v.requires_grad_() for k, v in inputs_with_bias(40, 20).items()}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        contrastive_loss(**leaves, log_scale=1.0, kind="sigmoid")
    assert max(saved) <= 60 * 64


@every_way
@pytest.mark.parametrize("largest", [1e-3, 60_000.0])
def test_float16_holds_gradients_of_scaled_losses(backend, largest):
    inputs = {k: (v.clamp(-3, 3) / 3 * largest).half() for k, v in make_inputs().items()}
    gradients = []
    for dtype in (torch.float16, torch.float64):
        leaves = {k: v.to(dtype).requires_grad_() for k, v in inputs.items()}
        loss = ours(backend)(**leaves, log_scale=1.3, bias=-1.0).loss
        gradients.append(torch.autograd.grad(loss * 1024, leaves.values()))
    for out, truth in zip(*gradients, strict=True):
        torch.testing.assert_close(out.double(), truth, rtol=0, atol=0.01 * truth.abs().max().item() + 6e-8)


def test_half_precision_operands_lose_no_gradient_of_a_mean(monkeypatch):
    """What CUDA multiplies has half precision, where a gradient of 1e-6 would be gone."""
    monkeypatch.setattr(sigmoid, "operands_of", lambda x: x.dtype)
    leaves = [v.half().requires_grad_() for v in list(make_inputs().values())[:2]]
    wide = [v.detach().double().requires_grad_() for v in leaves]
    for backend in ("auto", "chunked"):
        grads = [
            torch.autograd.grad(ours(backend)(x=x, y=y, log_scale=1.3).x_to_y.mean() * 1e-3, (x, y))
            for x, y in (leaves, wide)
        ]
        for out, truth in zip(*grads, strict=True):
            torch.testing.assert_close(out.double(), truth, rtol=0, atol=0.01 * truth.abs().max().item() + 6e-8)


@every_way
def test_two_runs_give_the_same_bits(backend):
    inputs = inputs_with_bias(600, 40, 24)
    runs = [losses_and_gradients(ours(backend), inputs, torch.float32) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@every_way
def test_the_backward_pass_can_run_again(backend):
    leaves = {k: v.requires_grad_() for k, v in inputs_with_bias().items()}
    loss = ours(backend)(**leaves, log_scale=1.3).loss
    first, second = (torch.autograd.grad(loss, leaves.values(), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_way
def test_a_double_backward_is_refused(backend):
    leaves = {k: v.requires_grad_() for k, v in inputs_with_bias().items()}
    grad = torch.autograd.grad(ours(backend)(**leaves, log_scale=1.3).loss, leaves["x"], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="contrastive_loss has no double backward"):
        grad.sum().backward()


@every_way
def test_no_pairs_cost_nothing(backend):
    leaves = {k: v.requires_grad_() for k, v in inputs_with_bias(0, 6).items()}
    out = ours(backend)(**leaves, log_scale=1.0)
    assert out.loss == 0
    assert out.x_to_y.shape == out.y_to_x.shape == (0,)
    out.loss.backward()
    assert (leaves["y_extra"].grad == 0).all()


@every_way
def test_empty_extras_are_as_none(backend):
    leaves = {k: v.requires_grad_() for k, v in make_inputs(5, 0).items()}
    out = ours(backend)(**leaves, log_scale=1.0)
    grads = torch.autograd.grad(out.loss, leaves.values())
    assert torch.equal(out.x_to_y, ours(backend)(x=leaves["x"], y=leaves["y"], log_scale=1.0).x_to_y)
    assert not any(grad.isnan().any() for grad in grads)


@every_way
def test_nan_stays_visible(backend):
    inputs = make_inputs()
    inputs["x"][3, 5] = math.nan
    out = ours(backend)(**inputs, log_scale=1.0)
    assert out.loss.isnan()
    assert out.x_to_y.isnan().nonzero().flatten().tolist() == [3]


@every_way
def test_autocast_does_not_lower_the_logits(backend):
    leaves = {k: v.requires_grad_() for k, v in inputs_with_bias().items()}
    expected = ours(backend)(**leaves, log_scale=1.0).loss
    expected_grads = torch.autograd.grad(expected, leaves.values())
    with torch.autocast("cpu", torch.bfloat16):
        loss = ours(backend)(**leaves, log_scale=1.0).loss
        grads = torch.autograd.grad(loss, leaves.values())
    assert torch.equal(loss, expected)
    assert all(torch.equal(a, b) for a, b in zip(grads, expected_grads, strict=True))


@pytest.mark.parametrize("bias", [torch.tensor([[-1.0]]), torch.tensor(-1.0).double(), torch.tensor(-1), -1])
def test_bias_may_be_any_number(bias):
    inputs = make_inputs()
    expected = ours()(**inputs, log_scale=1.0, bias=-1.0).loss
    assert torch.equal(ours()(**inputs, log_scale=1.0, bias=bias).loss, expected)


@pytest.mark.parametrize("way", ["forward", "chunked", "reference"])
@pytest.mark.parametrize("sparse", [False, True])
def test_opcheck(way, sparse):
    inputs = make_inputs(7, 4)
    scalars = [torch.tensor(value, requires_grad=True) for value in (1.0, -1.0)]
    targets = Targets(torch.tensor([0, 2, *[3] * 6]), torch.tensor([0, 3, 2]), torch.rand(3))
    arguments = (inputs["x"].requires_grad_(), inputs["y"].requires_grad_(), *scalars)
    labels = (*targets,) if sparse else (None, None, None)
    torch.library.opcheck(torch.ops.reserve_kernels.contrastive_sigmoid, (*arguments, *labels, True, True, way))


@every_way
@pytest.mark.parametrize("output", ["loss", "x_to_y"])
def test_compiles_as_one_graph_with_gradients(backend, output):
    inputs = inputs_with_bias(9, 5) | {"log_scale": torch.tensor(1.0)}

    def loss(*values):
        return getattr(ours(backend)(**dict(zip(inputs, values, strict=True))), output).sum()

    leaves, others = ([v.clone().requires_grad_() for v in inputs.values()] for _ in range(2))
    torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves).backward()
    loss(*others).backward()
    for leaf, other in zip(leaves, others, strict=True):
        torch.testing.assert_close(leaf.grad, other.grad)


def _results(inputs, backend):
    leaves = {k: v.requires_grad_() for k, v in inputs.items()}
    out = ours(backend)(**leaves, log_scale=1.0)
    return [*out, *torch.autograd.grad(out.loss, leaves.values())]


def _shapes(tensors):
    return [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]


@every_way
def test_shapes_without_values(backend):
    expected = _shapes(_results(inputs_with_bias(), backend))
    on_meta = _results({k: v.to("meta") for k, v in inputs_with_bias().items()}, backend)
    assert all(tensor.is_meta for tensor in on_meta)
    assert _shapes(on_meta) == expected
    with FakeTensorMode():
        fake = {k: torch.empty(v.shape) for k, v in inputs_with_bias().items()}
        assert _shapes(_results(fake, backend)) == expected


def test_back_ends_without_it_are_refused():
    with pytest.raises(RuntimeError, match="backend 'dense' cannot run: it has no kind='sigmoid'"):
        ours("dense")(**make_inputs(), log_scale=1.0)
