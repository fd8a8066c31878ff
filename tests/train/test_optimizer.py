"""The optimiser against a restatement in float64, its stored moments bit by bit, and its settings."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reserve.config import ModelConfig
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.official_layout import parameter_entries
from reserve.train.optimizer import (
    ReserveAdamW,
    decode_second_moment,
    encode_second_moment,
    parameter_groups,
)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.int16 if x.dtype == torch.bfloat16 else torch.int32)


def bfloat16_nearest(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float64).float().bfloat16())


# Of second moments whose cube float32 holds.
MOMENTS = st.floats(min_value=2.0**-41, max_value=2.0**40, width=32)


@given(MOMENTS)
def test_second_moment_loses_at_most_a_sixth_of_two_thousandths(v: float) -> None:
    """bfloat16 with a bit more has steps of 2^-9 and 2^-8 of its size, half of which a nearest value is off; a third of
    that is left after the cube root."""
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
    """What is stored means itself: no drift where nothing is added. Cubes are float32's normal numbers, or zero."""
    stored = torch.tensor([pattern], dtype=torch.int16).view(torch.bfloat16)
    value = stored.float().abs()
    if not 1e-37 < value < 1e38:
        return
    again = encode_second_moment(decode_second_moment(stored))
    # A tie can fall to the other of two equal distances: one step at most, in the direction of the negative.
    assert abs(float(decode_second_moment(again)) / float(decode_second_moment(stored)) - 1) <= 2.0**-9 / 3 + 1e-6


def test_decoding_is_the_cube_root_to_single_precision() -> None:
    """Of every stored value with a normal cube. float32's own power by a rounded third is off by ten times as much."""
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


def train(w: torch.Tensor, gradients: list[torch.Tensor], **settings) -> tuple[torch.Tensor, ReserveAdamW]:
    parameter = torch.nn.Parameter(w.clone())
    optimizer = ReserveAdamW([parameter], lr=1e-2, **settings)
    for g in gradients:
        parameter.grad = g.clone()
        optimizer.step()
    return parameter.detach(), optimizer


@pytest.fixture
def w() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(7, 5)


@pytest.fixture
def gradients() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(7, 5) * 10.0**-i for i in range(4)]


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("decay_to_start", [False, True])
def test_steps_with_float32_moments(w, gradients, correct: bool, decay_to_start: bool) -> None:
    ours, _ = train(w, gradients, moments="float32", bias_correction=correct, decay_to_start=decay_to_start)
    start = w.bfloat16() if decay_to_start else None
    truth = adam_in_float64(w, gradients, 1e-2, 0.1, correct=correct, start=start)
    torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_tensors_of_many_pieces(monkeypatch, w, gradients, layout: str) -> None:
    monkeypatch.setattr("reserve.train.optimizer.CPU_PIECE", 8)
    if layout == "transposed":
        w, gradients = w.t(), [g.t() for g in gradients]
    ours, _ = train(w, gradients, moments="float32")
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


def test_not_a_number_counts_as_zero_entry_by_entry(w, gradients) -> None:
    broken = [g.clone() for g in gradients]
    repaired = [g.clone() for g in gradients]
    for i, value in enumerate((math.nan, math.inf, -math.inf)):
        broken[i][i, 0], repaired[i][i, 0] = value, 0.0
    ours, optimizer = train(w, broken)
    expected, reference = train(w, repaired)
    assert torch.equal(ours, expected)
    (state,), (other,) = optimizer.state.values(), reference.state.values()
    assert torch.equal(bits(state["m"]), bits(other["m"]))
    assert torch.equal(bits(state["v"]), bits(other["v"]))


def test_parameter_without_gradient_is_left_alone(w) -> None:
    still, moving = torch.nn.Parameter(w.clone()), torch.nn.Parameter(w.clone())
    optimizer = ReserveAdamW([still, moving], lr=1e-2)
    moving.grad = torch.ones_like(w)
    optimizer.step()
    assert torch.equal(still, w)
    assert not torch.equal(moving, w)
    assert still not in optimizer.state


def test_rate_of_zero_moves_no_weight_and_still_counts_the_gradient(w, gradients) -> None:
    parameter = torch.nn.Parameter(w.clone())
    optimizer = ReserveAdamW([parameter], lr=0.0)
    parameter.grad = gradients[0]
    optimizer.step()
    assert torch.equal(parameter, w)
    torch.testing.assert_close(optimizer.state[parameter]["m"].float(), 0.1 * gradients[0], rtol=2.0**-8, atol=0)


def test_closure_gives_its_loss_with_gradients(w) -> None:
    parameter = torch.nn.Parameter(w.clone())
    optimizer = ReserveAdamW([parameter], lr=1e-2)

    def closure() -> torch.Tensor:
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == float(w.square().sum())
    assert not torch.equal(parameter, w)


@pytest.mark.parametrize("settings", [{}, {"moments": "float32"}, {"decay_to_start": True}])
def test_going_on_from_a_saved_state_is_the_same_to_the_bit(w, gradients, settings: dict) -> None:
    expected, _ = train(w, gradients, **settings)
    half, optimizer = train(w, gradients[:2], **settings)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)

    parameter = torch.nn.Parameter(half.clone())
    resumed = ReserveAdamW([parameter], lr=1e-2, **settings)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    (before,), (after,) = optimizer.state.values(), resumed.state.values()
    assert before.keys() == after.keys()
    for name in before.keys() - {"step"}:
        assert before[name].dtype == after[name].dtype
        assert torch.equal(bits(before[name]), bits(after[name])), name
    for g in gradients[2:]:
        parameter.grad = g.clone()
        resumed.step()
    assert torch.equal(parameter, expected)


def test_every_pattern_of_stored_bits_survives_saving(w) -> None:
    """Negative zeros, which mean something in the second moment, among them."""
    patterns = torch.arange(-0x8000, 0x8000, dtype=torch.int32).to(torch.int16)
    finite = patterns[torch.isfinite(patterns.view(torch.bfloat16))]
    parameter = torch.nn.Parameter(torch.zeros(len(finite)))
    optimizer = ReserveAdamW([parameter], lr=1e-2)
    parameter.grad = torch.zeros(len(finite))
    optimizer.step()
    optimizer.state[parameter]["v"] = finite.view(torch.bfloat16).clone()
    resumed = ReserveAdamW([parameter], lr=1e-2)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(bits(resumed.state[parameter]["v"]), finite)


def test_state_of_the_other_kind_of_moments_is_refused(w, gradients) -> None:
    _, optimizer = train(w, gradients[:1], moments="float32")
    other = ReserveAdamW([torch.nn.Parameter(w.clone())], lr=1e-2)
    with pytest.raises(ValueError, match=r"moments in torch.float32; this optimizer keeps them in torch.bfloat16"):
        other.load_state_dict(optimizer.state_dict())


def test_state_without_the_start_is_refused_where_decay_needs_it(w, gradients) -> None:
    _, optimizer = train(w, gradients[:1])
    other = ReserveAdamW([torch.nn.Parameter(w.clone())], lr=1e-2, decay_to_start=True)
    with pytest.raises(ValueError, match=r"this optimizer keeps .*'start'"):
        other.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"moments": "float16"}, "moments must be 'bfloat16' or 'float32'; got 'float16'"),
        ({"betas": (1.0, 0.9)}, "betas must be in"),
        ({"betas": (0.9, -0.1)}, "betas must be in"),
        ({"lr": -1.0}, "lr and weight_decay must be >= 0"),
        ({"eps": 0.0}, "eps > 0"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0"),
    ],
)
def test_wrong_setting_is_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReserveAdamW([torch.nn.Parameter(torch.zeros(1))], **{"lr": 1e-3} | settings)


@pytest.fixture(scope="module")
def model() -> MerlotReserve:
    return MerlotReserve(
        ModelConfig(hidden_size=64, vocab_size=60, vit_num_layers=1, vit_patch_size=4, audio_num_layers=1,
                    span_num_layers=1, joint_num_layers=1)
    )  # fmt: skip


def names_of(model: MerlotReserve, group: dict) -> set[str]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[parameter] for parameter in group["params"]}


def test_decay_is_for_what_has_several_axes_in_the_official_layout(model: MerlotReserve) -> None:
    decayed, plain = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert names_of(model, decayed) | names_of(model, plain) == {name for name, _ in model.named_parameters()}
    assert not names_of(model, decayed) & names_of(model, plain)
    # Biases with heads count as matrices there; other vectors do not.
    assert "joint_transformer.layers.0.attention.qkv.bias" in names_of(model, decayed)
    assert {f"vision_encoder.pool.{part}.bias" for part in ("query", "key", "value")} <= names_of(model, decayed)
    for name in ("vision_encoder.pool.out.bias", "head.bias", "contrastive_scales", "audio_encoder.encoder.cls"):
        assert name in names_of(model, plain)
    assert all(name in names_of(model, plain) for name, _ in model.named_parameters() if "norm" in name)


def test_finetuning_decays_large_matrices_only(model: MerlotReserve) -> None:
    decayed, _ = parameter_groups(model, 0.1, finetuning=True)
    expected = {
        entry.torch
        for entry in parameter_entries(model.config)
        if len(entry.shape) > 1 and math.prod(entry.shape) > 4096
    }
    assert names_of(model, decayed) == expected
    assert "head.weight" not in expected  # 64 * 64 is 4096, not more
    assert "joint_transformer.layers.0.attention.qkv.weight" in expected
    assert "token_embedding.weight" not in expected  # 60 * 64


def test_finetuning_step_pulls_toward_the_start(model: MerlotReserve) -> None:
    tuned = copy.deepcopy(model)
    groups = parameter_groups(tuned, 0.5, finetuning=True)
    optimizer = ReserveAdamW(groups, lr=0.1, moments="float32", bias_correction=True, decay_to_start=True)
    weight = tuned.joint_transformer.layers[0].attention.qkv.weight
    start = weight.detach().bfloat16().float()
    for parameter in tuned.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    with torch.no_grad():
        weight.add_(1.0)
    before = weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before - 0.1 * 0.5 * (before - start))
