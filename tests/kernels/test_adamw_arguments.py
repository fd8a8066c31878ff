"""Errors of BF16AdamW: invalid arguments, numbers and tensors that changed later, back ends that cannot run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reserve_kernels import BF16AdamW
from tests.kernels.adamw_cases import needs_native, some_gradients, some_weight, train


@pytest.fixture
def w() -> torch.Tensor:
    return some_weight()


@pytest.fixture
def gradients() -> list[torch.Tensor]:
    return some_gradients()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"moments": "float16"}, "moments must be 'bfloat16' or 'float32'; got 'float16'"),
        ({"moments": torch.float32}, "moments must be 'bfloat16' or 'float32'; got torch.float32"),
        ({"rounding": "up"}, "rounding must be 'auto', 'nearest' or 'stochastic'; got 'up'"),
        ({"seed": -1}, "seed must be an integer from 0 to 18446744073709551615; got -1"),
        ({"seed": 2**64}, "seed must be an integer from 0 to 18446744073709551615; got 18446744073709551616"),
        ({"betas": (1.0, 0.9)}, "betas must be in"),
        ({"betas": (0.9, -0.1)}, "betas must be in"),
        ({"lr": -1.0}, r"lr must be at least 0; got -1\.0"),
        ({"betas": (math.nan, 0.9)}, "betas must be finite"),
        ({"eps": 0.0}, r"eps must be at least 1\.17.*e-38; got 0\.0"),
        ({"eps": 1e-50}, r"eps must be at least 1\.17.*e-38; got 1e-50"),  # 0 in float32: 0 / 0 where no gradient was
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"weight_decay": math.nan}, "weight_decay must be finite"),
        ({"backend": "cudnn"}, r"backend must be 'auto' or one of .*'reference'; got 'cudnn'"),
    ],
)
def test_wrong_setting_is_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BF16AdamW([torch.nn.Parameter(torch.zeros(1))], **{"lr": 1e-3} | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": torch.tensor(1e-3)}, "lr must be a number"),
        ({"betas": (0.9, torch.tensor(0.999))}, r"betas must be a number; got tensor\(0\.9990\)"),
        ({"bias_correction": "no"}, "bias_correction must be True or False; got 'no'"),
        ({"decay_to_start": 1}, "decay_to_start must be True or False; got 1"),
        ({"seed": 0.5}, "seed must be an integer from 0 to 18446744073709551615; got 0.5"),
        ({"seed": None}, "seed must be an integer .*; got None"),
        ({"betas": 0.9}, r"betas must be two numbers; got 0\.9"),
        ({"betas": (0.9,)}, r"betas must be two numbers; got \(0\.9,\)"),
        ({"betas": ("0.9", 0.9)}, "betas must be a number; got '0.9'"),
    ],
)
def test_setting_of_another_type_is_named(settings: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        BF16AdamW([torch.nn.Parameter(torch.zeros(1))], **settings)


@pytest.mark.parametrize("name", ["amsgrad", "capturable", "differentiable", "foreach", "fused", "maximize"])
def test_options_of_other_optimizers_are_no_arguments(name: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        BF16AdamW([torch.nn.Parameter(torch.zeros(1))], **{name: True})


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("maximize", True, ValueError, "BF16AdamW does not support maximize; got maximize=True in a parameter group"),
        ("amsgrad", True, ValueError, "BF16AdamW does not support amsgrad"),
        ("capturable", True, ValueError, "BF16AdamW does not support capturable"),
        ("differentiable", True, ValueError, "BF16AdamW does not support differentiable"),
        ("backend", "native", ValueError, "backend is an argument of BF16AdamW, for all groups"),
        ("rounding", "up", ValueError, "rounding must be 'auto', 'nearest' or 'stochastic'; got 'up'"),
        ("moments", None, ValueError, "moments must be 'bfloat16' or 'float32'; got None"),
        ("bias_correction", None, TypeError, "bias_correction must be True or False; got None"),
    ],
)
def test_wrong_option_of_a_group_is_named(w, option: str, value: object, error: type[Exception], message: str) -> None:
    """In the constructor, in `add_param_group`, which then adds none, and in the step after it was set."""
    group = {"params": [torch.nn.Parameter(w.clone())], option: value}
    with pytest.raises(error, match=message):
        BF16AdamW([group])
    parameter = torch.nn.Parameter(w.clone())
    optimizer = BF16AdamW([parameter])
    with pytest.raises(error, match=message):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1
    optimizer.param_groups[0][option] = value
    parameter.grad = torch.ones_like(w)
    with pytest.raises(error, match=message):
        optimizer.step()
    assert torch.equal(parameter, w)


@pytest.mark.parametrize("before", [False, True])
def test_decay_to_start_that_changes_after_the_first_step_is_refused(w, gradients, before: bool) -> None:
    _, optimizer = train(w, gradients, decay_to_start=before)
    optimizer.param_groups[0]["decay_to_start"] = not before
    with pytest.raises(ValueError, match="decay_to_start cannot change after the first step"):
        optimizer.step()


def test_moments_that_change_after_the_first_step_are_refused(w, gradients) -> None:
    _, optimizer = train(w, gradients)
    optimizer.param_groups[0]["moments"] = "float32"
    with pytest.raises(ValueError, match=r"the m of .* must be torch.float32 .*; got torch.bfloat16"):
        optimizer.step()


@pytest.mark.parametrize(
    ("rate", "error", "message"),
    [
        (math.nan, ValueError, "lr must be finite; got nan"),
        (-1.0, ValueError, r"lr must be at least 0; got -1\.0"),
        (torch.tensor(0.1), TypeError, "lr must be a number; got tensor"),
        (None, TypeError, "lr must be a number; got None"),
    ],
)
def test_wrong_rate_that_is_set_later_is_named(w, rate: object, error: type[Exception], message: str) -> None:
    parameter = torch.nn.Parameter(w.clone())
    optimizer = BF16AdamW([parameter])
    optimizer.param_groups[0]["lr"] = rate
    parameter.grad = torch.ones_like(w)
    with pytest.raises(error, match=message):
        optimizer.step()
    assert torch.equal(parameter, w)


@pytest.mark.parametrize("rate", [np.float32(0.5), np.float64(0.5), np.int64(1), 1])
def test_rate_that_is_set_later_counts(w, gradients, rate: float) -> None:
    results = []
    for value in (rate, float(rate)):
        parameter = torch.nn.Parameter(w.clone())
        optimizer = BF16AdamW([parameter], lr=7.0)
        optimizer.param_groups[0]["lr"] = value
        parameter.grad = gradients[0]
        optimizer.step()
        results.append(parameter)
    assert torch.equal(*results)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
def test_parameter_that_comes_twice_is_refused(w) -> None:
    """Two threads would update it at once."""
    parameter = torch.nn.Parameter(w)
    with pytest.raises(ValueError, match="params must not hold a parameter twice"):
        BF16AdamW([parameter, parameter])


def test_parameters_of_another_dtype_are_refused() -> None:
    optimizer = BF16AdamW([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(TypeError, match="params must have dtype float32; got bfloat16"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1).bfloat16())]})
    assert len(optimizer.param_groups) == 1


def test_sparse_gradients_are_refused() -> None:
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = BF16AdamW(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match=r"takes no sparse gradients; got one for a parameter of shape \(5, 2\)"):
        optimizer.step()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda w, state: setattr(w, "data", w.data.double()),
            "the parameter of .* must be torch.float32 .*; got torch.f",
        ),
        (lambda w, state: setattr(w, "data", torch.zeros(9, 5)), r"the gradient of .*\(9, 5\).*; got .*\(7, 5\)"),
        (lambda w, state: state.update(m=state["m"][:3]), r"the m of .* must be .*; got .* of shape \(3, 5\)"),
        (
            lambda w, state: state.update(v=state["v"].float()),
            "the v of .* must be torch.bfloat16 .*; got torch.float32",
        ),
        (
            lambda w, state: state.update(start=state["start"].to("meta")),
            "the start of .* on cpu must be .*; got .* on m",
        ),
    ],
    ids=["parameter", "gradient", "m", "v", "start"],
)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_invalid_changes_between_steps_are_rejected(w, gradients, backend: str, spoil, message: str) -> None:
    """A model cast or moved, a state of other parameters: C would write beyond the ends of the arrays."""
    _, optimizer = train(w, gradients, decay_to_start=True, backend=backend)
    ((parameter, state),) = optimizer.state.items()
    spoil(parameter, state)
    with pytest.raises(ValueError, match=message):
        optimizer.step()


def test_a_gradient_of_another_dtype_is_refused(w) -> None:
    parameter = torch.nn.Parameter(w)
    parameter.grad_dtype = None  # any
    parameter.grad = w.bfloat16()
    with pytest.raises(ValueError, match=r"the gradient of .* must be torch.float32 .*; got torch.bfloat16"):
        BF16AdamW([parameter]).step()


@needs_native
def test_a_named_backend_says_that_it_needs_contiguous_parameters(w) -> None:
    parameter = torch.nn.Parameter(w.t())
    optimizer = BF16AdamW([parameter], backend="native")
    parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(RuntimeError, match="backend 'native' cannot run: it needs contiguous parameters"):
        optimizer.step()


def test_named_backend_that_cannot_run_here_says_why(w) -> None:
    parameter = torch.nn.Parameter(w.clone())
    optimizer = BF16AdamW([parameter], backend="cuda")
    parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(RuntimeError, match=r"BF16AdamW: backend 'cuda' cannot run on cpu .*it runs on a CUDA GPU only"):
        optimizer.step()
