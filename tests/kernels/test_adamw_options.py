"""Options of BF16AdamW in parameter groups: each counts, may differ by group, and is saved with the state."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from reserve_kernels import BF16AdamW
from reserve_kernels.adamw.reference import decode_second_moment, encode_second_moment
from tests.kernels.adamw_cases import bits, some_gradients, some_weight, train

OPTIONS = {"moments", "bias_correction", "decay_to_start", "rounding", "seed"}
"""Those that version 0.1.0 did not save."""


@pytest.fixture
def w() -> torch.Tensor:
    return some_weight()


@pytest.fixture
def gradients() -> list[torch.Tensor]:
    return some_gradients()


def step(optimizer: BF16AdamW, gradient: torch.Tensor) -> None:
    """One step with that gradient for every parameter."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = gradient.clone()
    optimizer.step()


def states(optimizer: BF16AdamW) -> list[dict[str, torch.Tensor]]:
    return [optimizer.state[parameter] for group in optimizer.param_groups for parameter in group["params"]]


@pytest.mark.parametrize(
    "options",
    [
        {"moments": "float32"},
        {"bias_correction": True},
        {"decay_to_start": True},
        {"rounding": "stochastic"},
        {"rounding": "stochastic", "seed": 7},
        {"betas": (0.8, 0.9)},
    ],
    ids=str,
)
def test_an_option_of_a_group_is_that_of_an_optimizer(w, gradients, options: dict[str, Any]) -> None:
    """For that group, and not for the one after it."""
    expected, alone = train(w, gradients, **options)
    other, plain = train(w, gradients)
    parameters = [torch.nn.Parameter(w.clone()) for _ in range(2)]
    optimizer = BF16AdamW([{"params": parameters[:1], **options}, {"params": parameters[1:]}], lr=1e-2)
    for gradient in gradients:
        step(optimizer, gradient)
    assert torch.equal(parameters[0], expected)
    assert torch.equal(parameters[1], other)
    for ours, truth in zip(states(optimizer), states(alone) + states(plain), strict=True):
        assert ours.keys() == truth.keys()
        for name in truth.keys() - {"step"}:
            assert torch.equal(bits(ours[name]), bits(truth[name]))
    changed = [
        not torch.equal(expected, other),
        not torch.equal(bits(states(alone)[0]["v"]), bits(states(plain)[0]["v"])),
    ]
    assert any(changed)


@pytest.mark.parametrize(
    ("options", "stochastic"),
    [
        ({}, False),
        ({"betas": [0.9, 0.98]}, False),
        ({"betas": (np.float32(0.9), np.float32(0.98))}, False),
        ({"betas": (0.9, 0.999)}, True),
        ({"betas": (0.95, 0.98)}, True),
        ({"betas": (0.9, 0.999), "rounding": "nearest"}, False),
        ({"rounding": "stochastic"}, True),
    ],
    ids=str,
)
def test_which_betas_are_rounded_to_the_nearest(options: dict[str, Any], stochastic: bool) -> None:
    gradient = torch.linspace(0.1, 3.0, 500)
    parameter = torch.nn.Parameter(torch.zeros(500))
    optimizer = BF16AdamW([parameter], **options)
    step(optimizer, gradient)
    beta1, beta2 = optimizer.param_groups[0]["betas"]
    (state,) = states(optimizer)
    v = torch.zeros(500).addcmul_(gradient, gradient, value=1 - float(beta2))
    nearest = torch.equal(bits(state["v"]), bits(encode_second_moment(v)))
    assert nearest == torch.equal(bits(state["m"]), bits((gradient * (1 - float(beta1))).bfloat16()))
    assert nearest != stochastic


def test_float32_moments_need_no_rounding(w, gradients) -> None:
    results = [train(w, gradients, moments="float32", rounding=rounding)[0] for rounding in ("nearest", "stochastic")]
    assert torch.equal(*results)


def test_seeds_places_and_steps_give_other_bits(w) -> None:
    """Parameters alike in all else are rounded independently; a group that is added later changes none before it."""
    gradient = torch.linspace(0.1, 3.0, 500)

    def run(seed: int, groups: int) -> list[torch.Tensor]:
        parameters = [torch.nn.Parameter(torch.zeros(500)) for _ in range(3)]
        optimizer = BF16AdamW(parameters[:1], betas=(0.9, 0.999), seed=seed)
        for parameter in parameters[1:groups]:
            optimizer.add_param_group({"params": [parameter]})
        step(optimizer, gradient)
        return [bits(state["v"]) for state in states(optimizer)]

    one, three, other = run(0, 1), run(0, 3), run(2**64 - 1, 1)
    assert torch.equal(one[0], three[0])
    assert not torch.equal(three[0], three[1])
    assert not torch.equal(three[1], three[2])
    assert not torch.equal(one[0], other[0])


def test_a_parameter_without_gradient_keeps_the_places_of_the_others(w, gradients) -> None:
    results = []
    for frozen in (False, True):
        first, second = torch.nn.Parameter(w.clone()), torch.nn.Parameter(w.clone())
        optimizer = BF16AdamW([first, second], betas=(0.9, 0.999))
        first.requires_grad_(not frozen)
        first.grad = None if frozen else gradients[0].clone()
        second.grad = gradients[0].clone()
        optimizer.step()
        results.append(bits(optimizer.state[second]["v"]))
    assert torch.equal(*results)


@pytest.mark.parametrize("count", [2**31 - 1, 2**31, 2**53, 2**63 - 2])
def test_step_counts_may_be_large(w, gradients, count: int) -> None:
    parameter = torch.nn.Parameter(w.clone())
    optimizer = BF16AdamW([parameter], betas=(0.9, 0.999), bias_correction=True)
    step(optimizer, gradients[0])
    optimizer.state[parameter]["step"].fill_(count)
    step(optimizer, gradients[1])
    assert int(optimizer.state[parameter]["step"]) == count + 1
    assert bool(parameter.isfinite().all())


def test_schedulers_that_change_betas_go_between_the_roundings(w) -> None:
    """OneCycleLR moves beta1 through that of the release; v keeps its mean."""
    parameter = torch.nn.Parameter(torch.zeros(500))
    optimizer = BF16AdamW([parameter], betas=(0.9, 0.98), bias_correction=True, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-2, total_steps=41, base_momentum=0.85, max_momentum=0.95
    )
    for _ in range(40):
        step(optimizer, torch.full((500,), 2.0))
        scheduler.step()
    group = optimizer.param_groups[0]
    assert group["betas"] == pytest.approx((0.95, 0.98))
    group["betas"] = (0.9, 0.98)
    step(optimizer, torch.full((500,), 2.0))
    v = decode_second_moment(optimizer.state[parameter]["v"])
    torch.testing.assert_close(v.mean(), torch.tensor(4 * (1 - 0.98**41)), rtol=3e-3, atol=0)


def test_options_are_saved_and_loaded(w, gradients) -> None:
    _, optimizer = train(w, gradients, rounding="stochastic", seed=3, bias_correction=True)
    other = BF16AdamW([torch.nn.Parameter(w.clone())])
    other.load_state_dict(optimizer.state_dict())
    for name in optimizer.defaults:
        assert other.param_groups[0][name] == optimizer.param_groups[0][name]


def test_a_state_saved_before_options_were_in_groups_loads(w, gradients) -> None:
    """Missing options keep the values of each group of the optimizer."""
    _, optimizer = train(w, gradients, moments="float32", bias_correction=True)
    saved = optimizer.state_dict()
    saved["param_groups"] = [{k: v for k, v in g.items() if k not in OPTIONS} for g in saved["param_groups"]]
    group = {"params": [torch.nn.Parameter(w.clone())], "moments": "float32", "seed": 9}
    other = BF16AdamW([group], bias_correction=True)
    other.load_state_dict(saved)
    loaded = other.param_groups[0]
    assert (loaded["lr"], loaded["moments"], loaded["bias_correction"], loaded["seed"]) == (1e-2, "float32", True, 9)
    assert OPTIONS.isdisjoint(saved["param_groups"][0])
    step(other, gradients[0])
    assert states(other)[0]["m"].dtype == torch.float32


def test_groups_of_different_moments_are_saved_and_loaded(w, gradients) -> None:
    def make() -> BF16AdamW:
        groups = [
            {"params": [torch.nn.Parameter(w.clone())], "moments": moments} for moments in ("float32", "bfloat16")
        ]
        return BF16AdamW(groups, betas=(0.9, 0.999))

    optimizer, other = make(), make()
    step(optimizer, gradients[0])
    other.load_state_dict(optimizer.state_dict())
    for ours, saved in zip(states(other), states(optimizer), strict=True):
        assert torch.equal(bits(ours["v"]), bits(saved["v"]))
    swapped = make()
    swapped.param_groups.reverse()
    with pytest.raises(ValueError, match=r"moments in torch.float32; this optimizer keeps them in torch.bfloat16"):
        swapped.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize(("name", "value"), [("moments", "float32"), ("decay_to_start", True)])
def test_options_that_shape_the_state_are_not_loaded_over_others(w, name: str, value: object) -> None:
    """Not before the first step either, where no state would tell."""
    saved = BF16AdamW([torch.nn.Parameter(w.clone())], **{name: value}).state_dict()
    other = BF16AdamW([torch.nn.Parameter(w.clone())])
    with pytest.raises(ValueError, match=f"the saved group 0 has {name}={value!r}; this optimizer's has"):
        other.load_state_dict(saved)


def test_a_state_of_another_number_of_groups_is_refused(w, gradients) -> None:
    _, optimizer = train(w, gradients)
    other = BF16AdamW([{"params": [torch.nn.Parameter(w.clone())]} for _ in range(2)])
    with pytest.raises(ValueError, match="different number of parameter groups"):
        other.load_state_dict(optimizer.state_dict())


def test_other_entries_of_a_group_are_kept(w, gradients) -> None:
    """Schedulers and users keep theirs there."""
    group = {
        "params": [torch.nn.Parameter(w.clone())],
        "name": "head",
        "lr_scale": 0.1,
        "maximize": False,
        "fused": None,
    }
    optimizer = BF16AdamW([group])
    step(optimizer, gradients[0])
    assert optimizer.state_dict()["param_groups"][0]["name"] == "head"


@pytest.mark.parametrize(
    "settings",
    [{}, {"moments": "float32"}, {"decay_to_start": True}, {"betas": (0.9, 0.999), "seed": 5}],
    ids=str,
)
def test_going_on_from_a_saved_state_is_the_same_to_the_bit(w, gradients, settings: dict) -> None:
    expected, _ = train(w, gradients, **settings)
    half, optimizer = train(w, gradients[:2], **settings)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)

    parameter = torch.nn.Parameter(half.clone())
    resumed = BF16AdamW([parameter], lr=1e-2, **settings)
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
    """Including negative zeros, whose sign matters in the second moment."""
    patterns = torch.arange(-0x8000, 0x8000, dtype=torch.int32).to(torch.int16)
    finite = patterns[torch.isfinite(patterns.view(torch.bfloat16))]
    parameter = torch.nn.Parameter(torch.zeros(len(finite)))
    optimizer = BF16AdamW([parameter], lr=1e-2)
    parameter.grad = torch.zeros(len(finite))
    optimizer.step()
    optimizer.state[parameter]["v"] = finite.view(torch.bfloat16).clone()
    resumed = BF16AdamW([parameter], lr=1e-2)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(bits(resumed.state[parameter]["v"]), finite)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_goes_on_as_the_original(w, gradients, copied) -> None:
    settings = {"rounding": "stochastic", "bias_correction": True, "decay_to_start": True, "backend": "reference"}
    _, optimizer = train(w, gradients[:2], **settings)
    both = [optimizer, copied(optimizer)]
    parameters = [each.param_groups[0]["params"][0] for each in both]
    assert parameters[0] is not parameters[1]
    for each, parameter in zip(both, parameters, strict=True):
        parameter.grad = gradients[2].clone()
        each.step()
    assert torch.equal(*parameters)
    assert both[1].backend == "reference"


def test_state_of_the_other_kind_of_moments_is_refused(w, gradients) -> None:
    _, optimizer = train(w, gradients[:1], moments="float32")
    other = BF16AdamW([torch.nn.Parameter(w.clone())], lr=1e-2)
    with pytest.raises(ValueError, match=r"moments in torch.float32; this optimizer keeps them in torch.bfloat16"):
        other.load_state_dict(optimizer.state_dict())


def test_state_without_the_start_is_refused_where_decay_needs_it(w, gradients) -> None:
    _, optimizer = train(w, gradients[:1])
    other = BF16AdamW([torch.nn.Parameter(w.clone())], lr=1e-2, decay_to_start=True)
    with pytest.raises(ValueError, match=r"this optimizer keeps .*'start'"):
        other.load_state_dict(optimizer.state_dict())


def test_numbers_of_numpy_are_saved_as_plain_ones(w, gradients, tmp_path) -> None:
    """torch.load(weights_only=True), the default, takes no others."""
    optimizer = BF16AdamW([w], lr=np.float64(1e-3), bias_correction=np.bool_(True), seed=np.int64(3))
    optimizer.param_groups[0]["lr"] = np.float64(2e-3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    (group,) = torch.load(tmp_path / "state.pt", weights_only=True)["param_groups"]
    assert (group["lr"], group["bias_correction"], group["seed"]) == (2e-3, True, 3)


def test_steps_are_counted_on_the_host(w) -> None:
    optimizer = BF16AdamW([w], betas=(0.9, 0.999))
    w.grad = torch.ones_like(w)
    with torch.device("meta"):
        optimizer.step()
        optimizer.step()
    assert optimizer.state[w]["step"].device.type == "cpu"
    assert int(optimizer.state[w]["step"]) == 2
