"""The optimiser against a restatement in float64, its stored moments bit by bit, and its settings."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter

from reserve_kernels import BF16AdamW, native
from reserve_kernels.adamw.reference import decode_second_moment, encode_second_moment
from tests.kernels.adamw_cases import PLAIN, bits, draw, needs_native, some_gradients, some_weight, train


def bfloat16_nearest(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float64).float().bfloat16())


# Second moments whose cube, and its distances to the two stored values, float32 can represent.
MOMENTS = st.floats(min_value=2.0**-38, max_value=2.0**40, width=32)


@given(MOMENTS)
def test_second_moment_loses_at_most_a_sixth_of_two_thousandths(v: float) -> None:
    """bfloat16 with one more bit has steps of 2^-9 to 2^-8 of its magnitude. The nearest value is off by half a step at
    most, and the cube root leaves a third of that."""
    decoded = float(decode_second_moment(encode_second_moment(torch.tensor([v])))[0])
    assert abs(decoded / v - 1) < 2.0**-8 / 3


@given(MOMENTS)
def test_second_moment_takes_the_nearer_of_the_two_values(v: float) -> None:
    stored = float(encode_second_moment(torch.tensor([v]))[0])
    cube = float(np.float32(np.float32(v) * np.float32(v)) * np.float32(v))
    magnitude = bfloat16_nearest(cube)
    assert abs(stored) == magnitude
    plain, raised = abs(magnitude - cube), abs(float(np.float32(magnitude) * np.float32(1 + 2**-9)) - cube)
    assert (stored < 0) == (raised <= plain)


@given(st.integers(0, 0xFFFF).map(lambda b: b if b < 0x8000 else b - 0x10000))
def test_every_stored_value_is_kept_by_decoding_and_encoding(pattern: int) -> None:
    """Stored values do not drift if nothing is added. Cubes are normal float32 numbers, or zero."""
    stored = torch.tensor([pattern], dtype=torch.int16).view(torch.bfloat16)
    value = stored.float().abs()
    if not 1e-37 < value < 1e38:
        return
    again = encode_second_moment(decode_second_moment(stored))
    # A tie can go to the other of two equally near values: one step at most, toward the negative one.
    assert abs(float(decode_second_moment(again)) / float(decode_second_moment(stored)) - 1) <= 2.0**-9 / 3 + 1e-6


def test_decoding_is_the_cube_root_to_single_precision() -> None:
    """For every stored value with a normal cube. float32's power with a rounded third has ten times the error."""
    stored = torch.arange(-0x8000, 0x8000, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    magnitude = stored.double().abs()
    usual = (magnitude >= 2.0**-126) & (magnitude < 2.0**127)
    stored, magnitude = stored[usual], magnitude[usual]
    cube = torch.where(stored < 0, magnitude * (1 + 2.0**-9), magnitude)
    torch.testing.assert_close(decode_second_moment(stored).double(), cube.pow(1 / 3), rtol=2.0**-22, atol=0)


def test_zero_is_stored_as_negative_zero_and_read_as_zero() -> None:
    stored = encode_second_moment(torch.tensor([0.0, 1e-20]))
    assert bits(stored).tolist() == [-0x8000, -0x8000]
    decoded = decode_second_moment(torch.cat((stored, torch.zeros(1, dtype=torch.bfloat16))))
    assert bits(decoded).tolist() == [0, 0, 0]


def test_cubes_that_are_no_normal_numbers_are_stored_as_zero() -> None:
    """The smallest normal number is 2^-126; bfloat16 would hold these cubes, the reference's hardware does not."""
    below, least = encode_second_moment(torch.tensor([2.0**-43, 2.0**-42]))
    assert bits(below) == -0x8000
    assert abs(float(least)) == 2.0**-126


def test_small_second_moments_are_stored_as_negative() -> None:
    """The distance to the nearer value is subnormal and counts as zero, and ties go to the negative one."""
    cubes = torch.linspace(2.0**-126, 2.0**-118, 1000, dtype=torch.float64)
    assert (encode_second_moment(cubes.pow(1 / 3).float()) < 0).all()


def adam_in_float64(w, gradients, lr, decay, *, correct=False, start=None):
    """Plain restatement of SPEC 9 with moments that are not rounded."""
    w = w.double().clone()
    start = torch.zeros_like(w) if start is None else start.double()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        g = g.double()
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
        m_hat, v_hat = (m / (1 - 0.9**t), v / (1 - 0.98**t)) if correct else (m, v)
        w = w - lr * (m_hat / (v_hat.sqrt() + 1e-6) + decay * (w - start))
    return w


@pytest.fixture
def w() -> torch.Tensor:
    return some_weight()


@pytest.fixture
def gradients() -> list[torch.Tensor]:
    return some_gradients()


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("decay_to_start", [False, True])
def test_steps_with_float32_moments(w, gradients, correct: bool, decay_to_start: bool, backend: str) -> None:
    settings = {"bias_correction": correct, "decay_to_start": decay_to_start, "backend": backend}
    ours, _ = train(w, gradients, moments="float32", **settings)
    start = w.bfloat16() if decay_to_start else None
    truth = adam_in_float64(w, gradients, 1e-2, 0.1, correct=correct, start=start)
    torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_tensors_of_many_pieces(monkeypatch, w, gradients, layout: str) -> None:
    monkeypatch.setattr("reserve_kernels.adamw.reference.CPU_PIECE", 8)
    if layout == "transposed":
        w, gradients = w.t(), [g.t() for g in gradients]
    ours, _ = train(w, gradients, moments="float32", backend="reference")
    assert ours.is_contiguous() == (layout == "contiguous")
    torch.testing.assert_close(ours.double(), adam_in_float64(w, gradients, 1e-2, 0.1), rtol=1e-5, atol=1e-6)


def test_first_step_uses_moments_that_are_not_rounded(w, gradients) -> None:
    ours, _ = train(w, gradients[:1])
    truth = adam_in_float64(w, gradients[:1], 1e-2, 0.1)
    torch.testing.assert_close(ours.double(), truth, rtol=1e-6, atol=1e-7)


def test_bfloat16_moments_stay_near_the_exact_ones(w, gradients) -> None:
    ours, optimizer = train(w, gradients)
    truth = adam_in_float64(w, gradients, 1e-2, 0.1)
    # m is off by 2^-9 a step, v by less; four steps of 1e-2 then move a weight by a part of that.
    torch.testing.assert_close(ours.double(), truth, rtol=0, atol=4 * 1e-2 * 4 * 2.0**-8 * 7)
    (state,) = optimizer.state.values()
    assert state["m"].dtype == state["v"].dtype == torch.bfloat16


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_not_a_number_counts_as_zero_entry_by_entry(w, gradients, backend: str) -> None:
    broken = [g.clone() for g in gradients]
    repaired = [g.clone() for g in gradients]
    for i, value in enumerate((math.nan, math.inf, -math.inf)):
        broken[i][i, 0], repaired[i][i, 0] = value, 0.0
    ours, optimizer = train(w, broken, backend=backend)
    expected, reference = train(w, repaired, backend=backend)
    assert torch.equal(ours, expected)
    (state,), (other,) = optimizer.state.values(), reference.state.values()
    assert torch.equal(bits(state["m"]), bits(other["m"]))
    assert torch.equal(bits(state["v"]), bits(other["v"]))


def test_parameter_without_gradient_is_left_alone(w) -> None:
    still, moving = torch.nn.Parameter(w.clone()), torch.nn.Parameter(w.clone())
    optimizer = BF16AdamW([still, moving], lr=1e-2)
    moving.grad = torch.ones_like(w)
    optimizer.step()
    assert torch.equal(still, w)
    assert not torch.equal(moving, w)
    assert still not in optimizer.state


def test_rate_of_zero_moves_no_weight_and_still_counts_the_gradient(w, gradients) -> None:
    parameter = torch.nn.Parameter(w.clone())
    optimizer = BF16AdamW([parameter], lr=0.0)
    parameter.grad = gradients[0]
    optimizer.step()
    assert torch.equal(parameter, w)
    torch.testing.assert_close(optimizer.state[parameter]["m"].float(), 0.1 * gradients[0], rtol=2.0**-8, atol=0)


def test_closure_gives_its_loss_with_gradients(w) -> None:
    parameter = torch.nn.Parameter(w.clone())
    optimizer = BF16AdamW([parameter], lr=1e-2)

    def closure() -> torch.Tensor:
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == float(w.square().sum())
    assert not torch.equal(parameter, w)


def test_groups_have_settings_of_their_own(w, gradients) -> None:
    slow, fast = torch.nn.Parameter(w.clone()), torch.nn.Parameter(w.clone())
    groups = [{"params": [slow], "lr": 1e-3}, {"params": [fast], "weight_decay": 0.5, "betas": (0.5, 0.5), "eps": 1e-2}]
    optimizer = BF16AdamW(groups, lr=1e-2)
    slow.grad, fast.grad = gradients[0].clone(), gradients[0].clone()
    optimizer.step()
    torch.testing.assert_close(slow.double(), adam_in_float64(w, gradients[:1], 1e-3, 0.1), rtol=1e-6, atol=1e-7)
    g = gradients[0].double()
    expected = w.double() - 1e-2 * (0.5 * g / ((0.5 * g**2).sqrt() + 1e-2) + 0.5 * w.double())
    torch.testing.assert_close(fast.double(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("moments", ["bfloat16", "float32"])
def test_each_parameter_is_corrected_for_its_own_steps(w, gradients, moments) -> None:
    """A parameter without a gradient at first starts counting later."""
    early, late = torch.nn.Parameter(w.clone()), torch.nn.Parameter(w.clone())
    optimizer = BF16AdamW([early, late], lr=1e-2, moments=moments, bias_correction=True)
    for step, gradient in enumerate(gradients):
        early.grad, late.grad = gradient.clone(), gradient.clone() if step else None
        optimizer.step()
    expected_early, _ = train(w, gradients, moments=moments, bias_correction=True)
    expected_late, _ = train(w, gradients[1:], moments=moments, bias_correction=True)
    assert torch.equal(early, expected_early)
    assert torch.equal(late, expected_late)


def test_parameters_with_strides_take_the_reference(w, gradients) -> None:
    parameter = torch.nn.Parameter(w.clone().t())
    optimizer = BF16AdamW([parameter], lr=1e-2)
    for gradient in gradients:
        parameter.grad = gradient.t().clone()
        optimizer.step()
    expected, _ = train(w, gradients, backend="reference")
    assert not parameter.is_contiguous()
    assert torch.equal(parameter, expected.t())


@needs_native
def test_auto_is_native_and_both_agree_with_the_reference(w, gradients) -> None:
    results = [train(w, gradients, backend=backend)[0] for backend in ("auto", "native", "reference")]
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[0], results[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("with_start", [False, True])
@pytest.mark.parametrize(("keys", "firsts"), [([], []), ([-(2**63), 7], [0, 2**62])], ids=["nearest", "stochastic"])
def test_opcheck_of_the_step(backend, with_start, keys, firsts) -> None:
    if backend == "native" and native.cpu_unavailable():
        pytest.skip(str(native.cpu_unavailable()))
    tensors = draw([5, 300], with_start=with_start)
    for gradient in tensors.gradients:
        gradient.nan_to_num_(0.0, 0.0, 0.0)
    torch.library.opcheck(torch.ops.reserve_kernels.adamw_, (*tensors.lists(), *PLAIN, keys, firsts, backend))


def test_the_step_compiles_without_a_break() -> None:
    plain, compiled = draw([5, 300]), draw([5, 300])

    def step(weights, gradients, m, v):
        torch.ops.reserve_kernels.adamw_(weights, gradients, m, v, [], *PLAIN, [], [], "reference")
        return [weight * 2 for weight in weights]

    expected = step(*plain.lists()[:4])
    results = torch.compile(step, fullgraph=True)(*compiled.lists()[:4])
    for result, other in zip(results + compiled.m, expected + plain.m, strict=True):
        assert torch.equal(result, other)


@pytest.mark.parametrize("correct", [False, True])
def test_a_compiled_training_step_is_compiled_once(correct: bool) -> None:
    """The rate and the step count change; the optimizer itself runs uncompiled."""
    torch.manual_seed(0)
    models = [torch.nn.Linear(3, 3)]
    models.append(copy.deepcopy(models[0]))
    optimizers = [BF16AdamW(model.parameters(), bias_correction=correct) for model in models]
    compilations = CompileCounter()

    def step(model: torch.nn.Module, optimizer: BF16AdamW, x: torch.Tensor) -> None:
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    compiled = torch.compile(step, backend=compilations)
    for i, x in enumerate(torch.randn(4, 2, 3)):
        for run, model, optimizer in zip((step, compiled), models, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
            run(model, optimizer, x)
        if i == 0:
            first = compilations.frame_count
    assert compilations.frame_count == first
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b)


def test_a_step_counts_as_a_change_for_autograd(w) -> None:
    """A backward pass through values that the step has overwritten is an error, not a wrong gradient."""
    parameter = torch.nn.Parameter(w.clone())
    optimizer = BF16AdamW([parameter])
    loss = parameter.square().sum()
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("moments", ["bfloat16", "float32"])
@pytest.mark.parametrize("betas", [(0.9, 0.98), (0.0, 0.0)])
def test_no_finite_gradient_spoils_a_weight(w, backend: str, moments: str, betas: tuple[float, float]) -> None:
    """It moves the weight as any gradient does in Adam, and the moments forget it."""
    signs = w.sign()
    huge = [signs * torch.finfo(torch.float32).max] * 3
    settings = {"betas": betas, "weight_decay": 0.0, "bias_correction": True, "backend": backend, "moments": moments}
    moved, _ = train(w, huge, **settings)
    torch.testing.assert_close(moved, w - 3 * 1e-2 * signs, rtol=0, atol=1e-3)
    later, optimizer = train(w, huge + [signs] * 3, **settings)
    (state,) = optimizer.state.values()
    assert bool(later.isfinite().all())
    assert bool(state["m"].isfinite().all())
    assert bool(state["v"].isfinite().all())
