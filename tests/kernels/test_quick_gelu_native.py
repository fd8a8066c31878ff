"""The native passes of bias_quick_gelu with each instruction set, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from reserve_kernels import native
from reserve_kernels.native import QuickGelu
from reserve_kernels.quick_gelu.native import quick_gelu_native, quick_gelu_native_backward
from reserve_kernels.quick_gelu.reference import quick_gelu_reference, quick_gelu_reference_backward
from tests.kernels.numerics import assert_as_good_as_reference
from tests.kernels.quick_gelu_cases import make_inputs, rounded

pytestmark = pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))
every_isa = pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])


def both_passes(inputs, isa, threads=1):
    x, bias, grad = inputs
    if not native.library().has_isa(isa):
        pytest.skip(f"this processor has no {isa}")

    def run(problem):
        native.library().quick_gelu_cpu(problem, threads, isa)

    return [quick_gelu_native(x, bias, run), *quick_gelu_native_backward(grad, x, bias, run)]


def check(inputs, isa, threads=1):
    outs = both_passes(inputs, isa, threads)
    x, bias, grad = rounded(inputs, inputs[0].dtype, torch.float32)
    truth = [quick_gelu_reference(x, bias), *quick_gelu_reference_backward(grad, x, bias)]
    x, bias, grad = inputs
    plain = [quick_gelu_reference(x, bias), *quick_gelu_reference_backward(grad, x, bias)]
    for out, exact, reference in zip(outs, truth, plain, strict=True):
        assert_as_good_as_reference(out, exact, reference)


def draw(shape, dtype, bias=True):
    x, b, grad = make_inputs(shape, bias)
    return x.to(dtype), None if b is None else b.float(), grad.to(dtype)


# Rows that vectors divide or not, of one strip and several, and rows longer than a strip.
@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (300, 1), (37, 31), (90, 3072), (70, 1037), (2, 70_000)])
@pytest.mark.parametrize("bias", [True, False])
def test_both_passes_are_as_good_as_the_reference(isa, dtype, shape, bias):
    check(draw(shape, dtype, bias), isa)


@every_isa
def test_every_number_of_bfloat16(isa):
    x = torch.arange(0x10000, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = x[x.isfinite()]
    check((x, None, torch.ones_like(x)), isa)


@every_isa
def test_errors_stay_relative_in_both_tails(isa):
    """A few units in the last place of the output, wherever it is not tiny."""
    x = torch.linspace(-50, 50, 200_001)
    out, slope, _ = both_passes((x, None, torch.ones_like(x)), isa)
    z = x.double()
    s = torch.sigmoid(1.702 * z)
    # The exponent is rounded, and the sigmoid's tail multiplies that by up to 85, as in PyTorch.
    torch.testing.assert_close(out.double(), z * s, rtol=5e-6, atol=1e-36)
    near = x.abs() < 1
    torch.testing.assert_close(out[near].double(), (z * s)[near], rtol=3e-7, atol=0)
    torch.testing.assert_close(slope.double(), s + 1.702 * z * s * (1 - s), rtol=0, atol=2.5e-7)


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_results_are_rounded_to_the_nearest_and_ties_to_even(isa, dtype):
    """For large z the output is z itself: of bfloat16 x and a bias between its numbers, the rounded sum."""
    x = torch.linspace(64, 512, 4001).to(dtype)
    bias = torch.linspace(0, 8, 4001)
    out = both_passes((x, bias, x), isa)[0]
    assert torch.equal(out, (x.float() + bias).to(dtype))


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_bits_do_not_depend_on_threads(threads):
    inputs = draw((300, 2000), torch.float32)
    for one, many in zip(both_passes(inputs, "baseline"), both_passes(inputs, "baseline", threads), strict=True):
        assert torch.equal(one, many)


@every_isa
@pytest.mark.parametrize("shift", [1, 3])
def test_unaligned_tensors_and_nothing_beside_them(isa, shift):
    inputs, around = draw((7, 131), torch.float32), []

    def run(problem: QuickGelu):
        out = torch.full((7 * 131 + 8,), 77.0)
        around.append(out)
        problem.out = out[shift:].data_ptr()
        native.library().quick_gelu_cpu(problem, 1, isa)

    if not native.library().has_isa(isa):
        pytest.skip(f"this processor has no {isa}")
    x, bias, grad = (torch.cat((t.new_zeros(shift), t.flatten()))[shift:].view(t.shape) for t in inputs)
    quick_gelu_native(x, bias, run)
    quick_gelu_native_backward(grad, x, bias, run)
    for buffer, expected in zip(around, both_passes(inputs, isa), strict=False):
        assert torch.equal(buffer[shift : shift + 7 * 131].view(7, 131), expected)
        assert (buffer[:shift] == 77).all()
        assert (buffer[shift + 7 * 131 :] == 77).all()


def problem(**changes) -> tuple[QuickGelu, list[torch.Tensor]]:
    """A backward problem of 2 rows of 3, with `changes`, and the memory that it points to."""
    kept = [torch.zeros(6), torch.zeros(6), torch.zeros(3), torch.zeros(6), torch.zeros(3)]
    made = QuickGelu(*(t.data_ptr() for t in kept), 2, 3, native.FLOAT32)
    for name, value in changes.items():
        setattr(made, name, value)
    return made, kept


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": 2},
        {"rows": -1},
        {"features": -1},
        {"rows": 2**62},
        {"x": None},
        {"out": None},
        {"grad_bias": None},
        {"bias": None},
        {"grad": None},
    ],
    ids=str,
)
def test_problems_that_c_cannot_use_are_rejected(changes):
    valid, _kept = problem()
    native.library().quick_gelu_cpu(valid, 1)
    spoiled, _kept = problem(**changes)
    with pytest.raises(ValueError, match="quick_gelu_cpu: invalid argument"):
        native.library().quick_gelu_cpu(spoiled, 1)


def test_fewer_threads_than_one_are_refused():
    with pytest.raises(ValueError, match="quick_gelu_cpu: invalid argument"):
        native.library().quick_gelu_cpu(problem()[0], 0)
