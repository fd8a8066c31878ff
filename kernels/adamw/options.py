"""The options of BF16AdamW, which live in its parameter groups: what they may be, and what follows from them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch

from reserve_kernels.adamw.reference import SMALLEST_NORMAL
from reserve_kernels.adamw.stochastic import DOUBLE_WORD
from reserve_kernels.checks import check_integer, check_real, check_tensor

MOMENTS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
ROUNDINGS = ("auto", "nearest", "stochastic")
RELEASED_BETAS = (0.9, 0.98)
"""The betas of the released training, which rounded to the nearest value."""
SHAPES_STATE = ("moments", "decay_to_start")
"""Options that say what the state of a parameter holds."""
NOT_SUPPORTED = ("amsgrad", "capturable", "differentiable", "maximize")
"""Options of torch.optim.AdamW that would change what a step does."""


def check_group(group: dict[str, Any]) -> None:
    """Validates a new group. Raises TypeError or ValueError naming what is wrong in it."""
    for parameter in group["params"]:
        check_tensor("params", parameter, (torch.float32,))
    if len(set(group["params"])) < len(group["params"]):
        raise ValueError("params must not hold a parameter twice")
    check_options(group)


def check_options(group: dict[str, Any]) -> None:
    """Validates the options of a group, which users and schedulers change. Raises TypeError or ValueError."""
    betas = group["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"betas must be two numbers; got {betas!r}")
    for beta in betas:
        check_real("betas", beta)
        if not 0 <= beta < 1:
            raise ValueError(f"betas must be in [0, 1); got {betas}")
    for name, least in (("lr", 0), ("weight_decay", 0), ("eps", SMALLEST_NORMAL)):
        value = group[name]
        check_real(name, value)
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}")
    _check_choice("moments", group["moments"], tuple(MOMENTS))
    _check_choice("rounding", group["rounding"], ROUNDINGS)
    for name in ("bias_correction", "decay_to_start"):
        if not isinstance(group[name], (bool, np.bool_)):
            raise TypeError(f"{name} must be True or False; got {group[name]!r}")
    check_integer("seed", group["seed"], 0, DOUBLE_WORD)
    for name in NOT_SUPPORTED:
        if group.get(name):
            raise ValueError(f"BF16AdamW does not support {name}; got {name}={group[name]!r} in a parameter group")
    if "backend" in group:
        raise ValueError("backend is an argument of BF16AdamW, for all groups; got it in a parameter group")


def plain_options(group: dict[str, Any]) -> dict[str, Any]:
    """The options of a group that are numbers, as Python's: schedulers and users set NumPy's too."""
    plain: dict[str, Any] = {name: float(group[name]) for name in ("lr", "eps", "weight_decay")}
    plain["betas"] = tuple(float(beta) for beta in group["betas"])
    plain |= {name: bool(group[name]) for name in ("bias_correction", "decay_to_start")}
    return plain | {"seed": int(group["seed"])}


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        allowed = " or ".join((", ".join(map(repr, choices[:-1])), repr(choices[-1])))
        raise ValueError(f"{name} must be {allowed}; got {value!r}")


def state_dtypes(group: dict[str, Any]) -> dict[str, torch.dtype]:
    """The dtype of each tensor in the state of a parameter of `group`, except the step."""
    dtype = MOMENTS[group["moments"]]
    return {"m": dtype, "v": dtype} | ({"start": torch.bfloat16} if group["decay_to_start"] else {})


def is_stochastic(group: dict[str, Any]) -> bool:
    """Whether moments of `group` are rounded stochastically: bfloat16 ones, unless the group asks for the nearest value
    or has the released betas (as float32 numbers, as the step uses them) and does not ask."""
    rounding: str = group["rounding"]
    if group["moments"] != "bfloat16":
        return False
    if rounding == "auto":
        return any(
            ctypes.c_float(beta).value != ctypes.c_float(released).value
            for beta, released in zip(group["betas"], RELEASED_BETAS, strict=True)
        )
    return rounding == "stochastic"
