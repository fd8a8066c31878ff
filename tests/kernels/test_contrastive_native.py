"""The native passes of contrastive_loss with each instruction set, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from reserve_kernels import native
from reserve_kernels.contrastive.native import NativePasses
from reserve_kernels.contrastive.passes import Columns, Passes, Softmaxes
from reserve_kernels.native import ContrastiveLogsumexp, ContrastiveScale, ContrastiveWeights
from tests.kernels.contrastive_cases import DRAWS
from tests.kernels.numerics import assert_as_good_as_reference

pytestmark = pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))
every_isa = pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
# One number, vectors' tails, strips of 32 rows and tiles of 512 columns with and without a rest.
every_size = pytest.mark.parametrize("size", [(1, 1), (1, 700), (5, 3), (33, 513), (64, 1024), (70, 1037), (300, 7)])
SUMMED = [(True, True), (True, False), (False, True)]


def passes_of(isa: str, threads: int = 1) -> NativePasses:
    if not native.library().has_isa(isa):
        pytest.skip(f"this processor has no {isa}")
    return NativePasses(lambda problem: native.library().contrastive_cpu(problem, threads, isa))


def check(outs, truths, plains):
    for out, truth, plain in zip(outs, truths, plains, strict=True):
        assert_as_good_as_reference(out, truth, plain)


def scaled(passes, x, grad, log_scale):
    """Scaled rows, gradients of the rows and shares of log_scale's."""
    out, grad_x, shares = torch.empty_like(x), torch.empty_like(x), x.new_empty(x.shape[0])
    passes.scale(x, log_scale, out)
    passes.scale_backward(grad, x, log_scale, grad_x, shares)
    return out, grad_x, shares


@every_isa
@every_size
@pytest.mark.parametrize("factor", [1.0, 1e-20, 2e15, 5e37])
@pytest.mark.parametrize("log_scale", [1.3, 9.0])
def test_scaling_is_as_good_as_the_reference(isa, size, factor, log_scale):
    log_scale, draws = torch.tensor(log_scale), []
    for _ in range(DRAWS):
        x = torch.randn(size).clamp(-3, 3)
        # Away from zero: short vectors have large gradients, whose error would be that of all.
        draws.append(((x + x.sign()) * factor, torch.randn(size)))
    truths = [scaled(Passes(), x.double(), grad.double(), log_scale.double()) for x, grad in draws]
    plains = [scaled(Passes(), x, grad, log_scale) for x, grad in draws]
    outs = scaled(passes_of(isa), *draws[0], log_scale)
    for place, out in enumerate(outs):
        alike = [(truth[place], plain[place]) for truth, plain in zip(truths, plains, strict=True)]
        assert_as_good_as_reference(out, *alike[0], alike)


def summed(passes, logits, bounded, which, blocks=1, store=False):
    """Logsumexps by row and by column, the diagonal and the logits afterwards."""
    by_row, by_column = which
    logits, (n, m) = logits.clone(), logits.shape
    rows = logits.new_empty(n) if by_row else None
    columns = Columns.empty(m, logits, bounded) if by_column else None
    diagonal = logits.new_empty(min(n, m))
    for part in torch.arange(n).chunk(blocks):
        first, last = int(part[0]), int(part[-1]) + 1
        on_diagonal = diagonal[first:last] if last <= m else None
        passes.logsumexp(
            logits[first:last], first, None if rows is None else rows[first:last], columns, on_diagonal, bounded, store
        )
    found = [] if rows is None else [rows]
    found += [] if columns is None else [columns.logsumexp(logits.dtype)]
    return [*found, logits] if store else found, diagonal


@every_isa
@every_size
@pytest.mark.parametrize("which", SUMMED)
@pytest.mark.parametrize(("bounded", "spread"), [(True, 15.0), (False, 1.0), (False, 100.0)])
@pytest.mark.parametrize("blocks", [1, 3])
def test_logsumexps_are_as_good_as_the_reference(isa, size, which, bounded, spread, blocks):
    logits = torch.empty(size).uniform_(-spread, spread)
    runs = [(passes_of(isa), logits), (Passes(), logits.double()), (Passes(), logits)]
    outs, truths, plains = (summed(passes, each, bounded, which, blocks, store=bounded)[0] for passes, each in runs)
    check(outs, truths, plains)


@every_isa
def test_the_diagonal_is_that_of_the_logits(isa):
    logits = torch.randn(70, 70)
    assert torch.equal(summed(passes_of(isa), logits, True, (True, True), 3, store=True)[1], logits.diagonal())


@every_isa
def test_many_equal_logits_lose_nothing(isa):
    """Sums over a million numbers, whose roundings in float32 would all be in one direction."""
    for size in ((2, 500_000), (500_000, 2)):
        for bounded in (True, False):
            (rows, columns), _ = summed(passes_of(isa), torch.full(size, 0.3), bounded, (True, True), 2)
            for found, count in ((rows, size[1]), (columns, size[0])):
                expected = torch.tensor(0.3).double() + torch.tensor(float(count)).double().log()
                assert (found.double() - expected).abs().max() <= 2 * 2**-20


@every_isa
def test_an_exponential_is_right_to_a_unit_in_the_last_place(isa):
    logits = torch.linspace(-60, 60, 200_001)[None]
    (_, e), _ = summed(passes_of(isa), logits, True, (True, False), store=True)
    exact = logits.double().exp()
    assert ((e.double() - exact) / exact).abs().max() < 1.5 * 2**-23


def weighted(passes, logits, softmaxes, bounded, exponentiated, in_place):
    given = logits.exp() if exponentiated else logits.clone()
    out = given if in_place else torch.empty_like(given)
    passes.weights(given, out, 2, softmaxes, bounded, exponentiated)
    return out


@every_isa
@pytest.mark.parametrize("size", [(1, 3), (33, 513), (70, 1037), (5, 1024)])
@pytest.mark.parametrize("which", SUMMED)
@pytest.mark.parametrize(("bounded", "exponentiated"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("in_place", [True, False])
def test_weights_are_as_good_as_the_reference(isa, size, which, bounded, exponentiated, in_place):
    logits, (by_row, by_column) = torch.empty(size).uniform_(-20, 20), which
    rows = [torch.randn(size[0]), torch.logsumexp(logits, 1)] if by_row else [None, None]
    columns = [torch.randn(size[1]), torch.logsumexp(logits, 0)] if by_column else [None, None]
    diagonal = torch.randn(size[0]) if by_row and by_column else None

    def run(passes, dtype):
        values = [None if v is None else v.to(dtype) for v in (*rows, *columns, diagonal)]
        return weighted(passes, logits.to(dtype), Softmaxes(*values), bounded, exponentiated, in_place)

    check([run(passes_of(isa), torch.float32)], [run(Passes(), torch.float64)], [run(Passes(), torch.float32)])


@every_isa
@pytest.mark.parametrize("bounded", [True, False])
def test_nan_stays_in_its_row_and_all_columns(isa, bounded):
    logits = torch.randn(40, 50)
    logits[3] = torch.nan
    (rows, columns), _ = summed(passes_of(isa), logits, bounded, (True, True))
    assert rows.isnan().nonzero().flatten().tolist() == [3]
    assert columns.isnan().all()


@every_isa
def test_a_pass_writes_its_rows_and_nothing_beside_them(isa):
    around = torch.full((9, 131), 77.0)
    passes, x = passes_of(isa), torch.randn(7, 131)
    passes.scale(x, torch.tensor(1.0), around[1:8])
    passes.weights(x, around[1:8], 0, Softmaxes(torch.ones(7), torch.ones(7)), False, False)
    assert (around[[0, 8]] == 77).all()
    assert not (around[1:8] == 77).any()


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("bounded", [True, False])
def test_bits_do_not_depend_on_threads(threads, bounded):
    x, grad, logits = torch.randn(1000, 700), torch.randn(1000, 700), torch.randn(900, 1000)
    softmaxes = Softmaxes(torch.randn(900), torch.ones(900), torch.randn(1000), torch.ones(1000))

    def run(threads):
        passes = passes_of("baseline", threads)
        found, _ = summed(passes, logits, bounded, (True, True), 2, store=bounded)
        weights = weighted(passes, logits, softmaxes, bounded, False, in_place=False)
        return [*scaled(passes, x, grad, torch.tensor(1.3)), *found, weights]

    assert all(torch.equal(one, many) for one, many in zip(run(1), run(threads), strict=True))


# Valid problems of 2 rows of 3, by the names of fields that must not be null; numbers are the same for all.
POINTERS = {
    ContrastiveScale: ("x", "grad", "out", "shares"),
    ContrastiveLogsumexp: ("logits", "row_lse", "column_sum", "column_max", "diagonal"),
    ContrastiveWeights: (
        *("logits", "weights", "row_grad", "row_lse", "column_grad", "column_lse"),
        "diagonal_grad",
    ),
}
SPOILED = [
    *((ContrastiveScale, change) for change in ({"rows": -1}, {"dim": -1}, {"rows": 2**62})),
    *((ContrastiveScale, {name: None}) for name in ("x", "out", "shares")),
    *((ContrastiveLogsumexp, change) for change in ({"rows": -1}, {"columns": -1}, {"first": 2}, {"first": -1})),
    *((ContrastiveLogsumexp, {name: None}) for name in ("logits", "column_sum", "column_max")),
    (ContrastiveLogsumexp, {"row_lse": None, "column_sum": None, "column_max": None}),
    (ContrastiveLogsumexp, {"store": 1}),
    *((ContrastiveWeights, change) for change in ({"rows": -1}, {"rows": 2**62}, {"first": 2}, {"exponentiated": 1})),
    *((ContrastiveWeights, {name: None}) for name in POINTERS[ContrastiveWeights][:-1]),
    (ContrastiveWeights, dict.fromkeys(("row_grad", "row_lse", "column_grad", "column_lse"))),
]


def problem(kind):
    """A valid problem, and the memory that it points to."""
    kept = {name: torch.zeros(6, dtype=torch.float64) for name in POINTERS[kind]}
    sizes = {"rows": 2, "dim" if kind is ContrastiveScale else "columns": 3}
    return kind(**{name: t.data_ptr() for name, t in kept.items()}, **sizes), kept


@pytest.mark.parametrize(("kind", "changes"), SPOILED, ids=str)
def test_problems_that_c_cannot_use_are_rejected(kind, changes):
    made, _kept = problem(kind)
    native.library().contrastive_cpu(made, 1)
    for name, value in changes.items():
        setattr(made, name, value)
    with pytest.raises(ValueError, match=r"contrastive_\w+_cpu: invalid argument"):
        native.library().contrastive_cpu(made, 1)


@pytest.mark.parametrize("kind", POINTERS)
def test_fewer_threads_than_one_are_refused(kind):
    made, _kept = problem(kind)
    with pytest.raises(ValueError, match=r"contrastive_\w+_cpu: invalid argument"):
        native.library().contrastive_cpu(made, 0)
