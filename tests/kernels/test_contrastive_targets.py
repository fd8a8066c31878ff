"""contrastive_loss with label weights as sparse rows, of both kinds."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode

from reserve_kernels import Targets, contrastive_loss
from reserve_kernels.contrastive import passes, sigmoid
from tests.kernels.contrastive_cases import DRAWS, every_backend, losses_and_gradients, make_inputs
from tests.kernels.numerics import assert_as_good_as_reference
from tests.kernels.test_contrastive_sigmoid import written_out as sigmoid_written_out

PAIRS, X_EXTRA, Y_EXTRA = 37, 5, 11  # of make_inputs()


def draw_matrix(columns, seed=0, weighted=True, rows=PAIRS):
    """A matrix [rows, columns] with 0 to 4 entries a row, the third without any."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.zeros(rows, columns, dtype=torch.float64)
    for row in range(rows):
        count = 0 if row == 2 else int(torch.randint(1, 5, (), generator=generator))
        places = torch.randperm(columns, generator=generator)[:count]
        matrix[row, places] = torch.rand(count, generator=generator, dtype=torch.float64) if weighted else 1.0
    return matrix


def sparse(matrix, weighted=True):
    """The entries of each row in descending order of their columns."""
    rows, columns = matrix.flip(1).nonzero(as_tuple=True)
    columns = matrix.shape[1] - 1 - columns
    counts = torch.bincount(rows, minlength=len(matrix))
    offsets = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    return Targets(offsets, columns, matrix[rows, columns].float() if weighted else None)


def written_out(x, y, log_scale, of_x, of_y, x_extra, y_extra):
    """Cross-entropy with the dense weights `of_x` [pairs, y and y_extra] and `of_y` [pairs, x and x_extra]."""

    def prepare(*parts):
        v = torch.cat(parts)
        return v / torch.sqrt(v.square().sum(-1, keepdim=True) + 1e-5) * torch.exp(log_scale / 2)

    losses = []
    for side, others, weights in ((x, (y, y_extra), of_x), (y, (x, x_extra), of_y)):
        logits = prepare(side) @ prepare(*others).T
        losses.append(-(weights.to(logits.dtype) * torch.log_softmax(logits, 1)).sum(1))
    return (losses[0].mean() + losses[1].mean()) / 2, *losses


def equal_shares(matrix):
    return matrix / matrix.sum(1, keepdim=True).clamp(min=1)


def transposed(matrix, extra):
    """The rows of the pairs, with no weight on `extra` candidates of the other side."""
    return torch.cat((matrix[:, : len(matrix)].T, matrix.new_zeros(len(matrix), extra)), 1)


def compare(run, reference, dense, make, dtype):
    """By the acceptance rule, `reference` being the op's in `dtype`."""
    truth, plain, out = (
        [losses_and_gradients(each, make(seed), of, 1.3) for seed in range(DRAWS)]
        for each, of in ((dense, torch.float64), (reference, dtype), (run, dtype))
    )
    for place in range(len(out[0])):
        truths, plains, outs = (torch.stack([draw[place] for draw in each]) for each in (truth, plain, out))
        assert_as_good_as_reference(outs, truths, plains)


CASES = {
    "weights, their transpose": (draw_matrix(PAIRS + Y_EXTRA), None),
    "equal shares, their transpose": (draw_matrix(PAIRS + Y_EXTRA, weighted=False), None),
    "weights of each direction": (draw_matrix(PAIRS + Y_EXTRA), draw_matrix(PAIRS + X_EXTRA, 1)),
}


@every_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("of_x", "of_y"), CASES.values(), ids=CASES.keys())
def test_softmax_matches_float64(backend, dtype, of_x, of_y):
    weighted = bool((of_x % 1).any())
    targets = sparse(of_x, weighted)
    given = targets if of_y is None else (targets, sparse(of_y))
    dense_y = transposed(of_x, X_EXTRA) if of_y is None else of_y.float()
    if not weighted:
        dense_x, dense_y = equal_shares(of_x), equal_shares(dense_y)
    else:
        dense_x, dense_y = of_x.float(), dense_y.float()

    def run_by(name):
        return lambda **arguments: contrastive_loss(**arguments, targets=given, backend=name)

    def dense(**arguments):
        return written_out(**arguments, of_x=dense_x, of_y=dense_y)

    compare(run_by(backend), run_by("reference"), dense, lambda seed: make_inputs(seed=seed, dtype=dtype), dtype)


@pytest.mark.parametrize("backend", ["auto", "chunked", "reference"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("block_bytes", [1, 8 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sigmoid_matches_float64(monkeypatch, backend, weighted, block_bytes, dtype):
    monkeypatch.setattr(passes, "BLOCK_BYTES", block_bytes)
    matrix = draw_matrix(PAIRS + Y_EXTRA, weighted=weighted)
    targets = sparse(matrix, weighted)

    def run_by(name):
        return lambda **arguments: contrastive_loss(
            **arguments, kind="sigmoid", bias=-1.0, targets=targets, backend=name
        )

    def dense(**arguments):
        logits_dtype = arguments["x"].dtype
        return sigmoid_written_out(**arguments, bias=-1.0, matrix=matrix.float().to(logits_dtype))

    compare(run_by(backend), run_by("reference"), dense, lambda seed: make_inputs(seed=seed, dtype=dtype), dtype)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_one_target_each_equals_none(kind):
    inputs = {k: v.requires_grad_() for k, v in make_inputs().items()}
    results = []
    for targets in (None, Targets(torch.arange(PAIRS + 1), torch.arange(PAIRS))):
        out = contrastive_loss(**inputs, log_scale=1.3, kind=kind, targets=targets)
        results.append([*out, *torch.autograd.grad(out.loss, inputs.values())])
    for out, expected in zip(*results, strict=True):
        torch.testing.assert_close(out, expected)


def test_masked_places_equal_sliced_ones():
    """Where the host does not know the offsets, as on a GPU, entries of other rows go behind the block."""
    targets = sparse(draw_matrix(PAIRS, seed=4))
    memory = torch.arange(10 * PAIRS + 1, dtype=torch.float32)
    sliced = sigmoid.Piece(memory, PAIRS, 5, False, targets)
    places, weights = sigmoid.masked_places(targets, 5, 10, PAIRS, torch.float32)
    inside = places < 10 * PAIRS
    assert torch.equal(places[inside], sliced.places)
    assert torch.equal(weights[inside], sliced.weights)
    assert (places[~inside] == 10 * PAIRS).all()


def test_masked_places_leave_out_what_is_no_column():
    """A GPU's values are not checked, and place 5 of four columns is that of another row."""
    targets = Targets(torch.tensor([0, 1, 3]), torch.tensor([5, -1, 1]))
    assert sigmoid.masked_places(targets, 0, 2, 4, torch.float32)[0].tolist() == [8, 8, 5]


@pytest.mark.parametrize("spoiled", [math.nan, math.inf])
def test_what_is_not_finite_in_y_extra_stays_out_of_the_losses_of_y(spoiled):
    inputs, targets = make_inputs(4, 2), Targets(torch.arange(0, 9, 2), torch.tensor([0, 4, 1, 5, 2, 4, 3, 5]))
    results = []
    for value in (0.0, spoiled):
        inputs["y_extra"][:] = value
        leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
        y_to_x = contrastive_loss(**leaves, log_scale=1.0, targets=targets).y_to_x
        results.append([y_to_x, *torch.autograd.grad(y_to_x.sum(), [leaves[name] for name in ("x", "y", "x_extra")])])
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_without_numbers_give_log_scale_no_gradient(normalize):
    log_scale = torch.tensor(1.0, requires_grad=True)
    x, targets = torch.zeros(3, 0), Targets(torch.arange(4), torch.arange(3))
    loss = contrastive_loss(x, x, log_scale, normalize=normalize, targets=targets).loss
    assert torch.autograd.grad(loss, log_scale)[0] == 0


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_compiles_as_one_graph_with_gradients(kind):
    inputs = make_inputs() | {"log_scale": torch.tensor(1.0)}
    targets = sparse(draw_matrix(PAIRS + Y_EXTRA))

    def loss(offsets, columns, weights, *values):
        labels = Targets(offsets, columns, weights)
        return contrastive_loss(**dict(zip(inputs, values, strict=True)), kind=kind, targets=labels).loss

    leaves, others = ([v.clone().requires_grad_() for v in inputs.values()] for _ in range(2))
    torch.compile(loss, fullgraph=True, backend="aot_eager")(*targets, *leaves).backward()
    loss(*targets, *others).backward()
    for leaf, other in zip(leaves, others, strict=True):
        torch.testing.assert_close(leaf.grad, other.grad)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("weighted", [True, False])
def test_shapes_without_values(kind, weighted):
    inputs, targets = make_inputs(), sparse(draw_matrix(PAIRS + Y_EXTRA), weighted)

    def shapes(move):
        leaves = {k: move(v).requires_grad_() for k, v in inputs.items()}
        labels = Targets(*(None if part is None else move(part) for part in targets))
        out = contrastive_loss(**leaves, log_scale=1.0, kind=kind, targets=labels)
        return [(tuple(t.shape), t.dtype) for t in (*out, *torch.autograd.grad(out.loss, leaves.values()))]

    expected = shapes(torch.clone)
    assert shapes(lambda t: t.to("meta")) == expected
    with FakeTensorMode() as mode:
        assert shapes(mode.from_tensor) == expected


def test_opcheck_of_single_logits():
    inputs = make_inputs(7, 4)
    x, y, log_scale = inputs["x"].requires_grad_(), inputs["y_extra"].requires_grad_(), torch.tensor(1.0)
    offsets, columns = torch.tensor([0, 2, 2, 2, 2, 2, 2, 3]), torch.tensor([3, 1, 2])
    arguments = (x, y, log_scale.requires_grad_(), offsets, columns)
    torch.library.opcheck(torch.ops.reserve_kernels.contrastive_entries, arguments)


def test_single_logits_are_made_a_block_at_a_time(monkeypatch):
    inputs = {k: v.requires_grad_() for k, v in make_inputs().items()}
    targets, results = sparse(draw_matrix(PAIRS + Y_EXTRA)), []
    for size in (8 << 20, 1):
        monkeypatch.setattr(passes, "BLOCK_BYTES", size)
        out = contrastive_loss(**inputs, log_scale=1.0, targets=targets)
        results.append([*out, *torch.autograd.grad(out.loss, inputs.values())])
    for out, expected in zip(*results, strict=True):
        torch.testing.assert_close(out, expected)


def test_no_pairs_cost_nothing():
    nothing = Targets(torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    for kind in ("softmax", "sigmoid"):
        inputs = {k: v.requires_grad_() for k, v in make_inputs(0, 6).items()}
        loss = contrastive_loss(**inputs, log_scale=1.0, kind=kind, targets=nothing).loss
        assert loss == 0
        loss.backward()


GOOD = Targets(torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), torch.tensor([0.5, 0.2, 0.3]))
BAD = {
    "type": (torch.eye(2), TypeError, "targets must be reserve_kernels.Targets; got Tensor"),
    "one of two": ((GOOD, 3), TypeError, r"targets\[1\] must be reserve_kernels.Targets; got int"),
    "three": ((GOOD,) * 3, ValueError, "targets must be Targets or two of them, of x and of y; got 3"),
    "offsets dtype": (GOOD._replace(offsets=GOOD.offsets.int()), TypeError, "targets.offsets must have dtype int64"),
    "offsets shape": (
        GOOD._replace(offsets=torch.tensor([0, 3])),
        ValueError,
        r"targets.offsets must have shape \[3\]",
    ),
    "offsets": (
        GOOD._replace(offsets=torch.tensor([0, 1, 2])),
        ValueError,
        "targets.offsets must rise from 0 to the n",
    ),
    "falling": (
        GOOD._replace(offsets=torch.tensor([0, 4, 3])),
        ValueError,
        "targets.offsets must rise from 0 to the n",
    ),
    "columns": (
        GOOD._replace(columns=torch.tensor([1, 0, 4])),
        ValueError,
        "targets.columns must be from 0 to 3; got 4",
    ),
    "negative": (
        GOOD._replace(columns=torch.tensor([1, 0, -1])),
        ValueError,
        "targets.columns must be from 0 to 3; got -1",
    ),
    "twice": (
        GOOD._replace(columns=torch.tensor([1, 2, 2])),
        ValueError,
        "targets must have each entry once; got column 2 twice in row 1",
    ),
    "weights dtype": (
        GOOD._replace(weights=torch.ones(3).long()),
        TypeError,
        "targets.weights must have dtype float16",
    ),
    "weights shape": (
        GOOD._replace(weights=torch.ones(2)),
        ValueError,
        r"targets.weights must have shape \[3\]; got \[2\]",
    ),
    "gradient": (
        GOOD._replace(weights=torch.ones(3, requires_grad=True)),
        ValueError,
        "targets.weights get no gradient: detach them",
    ),
}


@pytest.mark.parametrize(("targets", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_targets_are_named(targets, error, message):
    x, extra = torch.randn(2, 8), torch.randn(2, 8)
    with pytest.raises(error, match=message):
        contrastive_loss(x, x, 1.0, y_extra=extra, targets=targets)


WRONG_VALUES = ["offsets", "falling", "columns", "negative", "twice"]


@pytest.mark.parametrize("case", WRONG_VALUES)
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_wrong_values_are_named_in_a_compiled_call(kind, case):
    targets, _, message = BAD[case]
    x, extra = torch.randn(2, 8), torch.randn(2, 8)

    def loss(*values):
        return contrastive_loss(x, x, 1.0, kind=kind, y_extra=extra, targets=Targets(*values)).loss

    with pytest.raises(ValueError, match=message):
        torch.compile(loss, fullgraph=True, backend="aot_eager")(*targets)


def test_wrong_values_of_y_are_named():
    x = torch.randn(2, 8)
    good, wrong = Targets(torch.arange(3), torch.arange(2)), Targets(torch.arange(3), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"targets\[1\].columns must be from 0 to 1; got 2"):
        contrastive_loss(x, x, 1.0, targets=(good, wrong))


def test_sigmoid_takes_fractions_of_one_kind_alone():
    x = torch.randn(2, 8)
    with pytest.raises(ValueError, match=r"targets.weights must be from 0 to 1 for kind='sigmoid'; got 1.5"):
        contrastive_loss(
            x, x, 1.0, kind="sigmoid", targets=Targets(*GOOD[:2], torch.tensor([0.0, 1.5, 1.0])), y_extra=x
        )
    with pytest.raises(ValueError, match="targets must be one Targets for kind='sigmoid'"):
        contrastive_loss(x, x, 1.0, kind="sigmoid", targets=(GOOD, GOOD))


def test_several_ranks_are_refused():
    group = dist.ProcessGroup(0, 2)
    x = torch.randn(2, 8)
    with pytest.raises(ValueError, match="targets must be None with a group of several ranks"):
        contrastive_loss(x, x, 1.0, targets=GOOD, group=group)
