"""AdamW with the moments in bfloat16, as the reference trains (SPEC 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch

from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.official_layout import parameter_entries

PRECISION_BIT = 1.0 + 2.0**-9
"""A stored second moment that is negative stands for its magnitude times this."""
SMALLEST_NORMAL = torch.finfo(torch.float32).tiny
FINETUNING_DECAY_SIZE = 4096
CPU_PIECE = 1 << 16
"""Numbers of a tensor that are updated at a time on the CPU: the two dozen passes over them stay in the cache."""


def encode_second_moment(v: torch.Tensor) -> torch.Tensor:
    """float32 v >= 0 -> bfloat16: its cube, the sign telling which of two values is nearer.

    The cube trades exponent range, of which bfloat16 has too much here, for precision; the sign is free and adds a bit.
    """
    cube = v * v * v
    cube = torch.where(cube < SMALLEST_NORMAL, 0.0, cube)  # the reference's hardware has no subnormals
    rounded = cube.bfloat16()
    wide = rounded.float()
    plain = (wide - cube).abs()
    raised = (wide * PRECISION_BIT - cube).abs()
    # The negative wins ties, zero included.
    return torch.where(plain < raised, rounded, -rounded)


def decode_second_moment(stored: torch.Tensor) -> torch.Tensor:
    """The inverse: bfloat16 -> float32."""
    magnitude = stored.float().abs()
    cube = torch.where(stored < 0, magnitude * PRECISION_BIT, magnitude)
    root = cube.pow(1.0 / 3.0)
    # 1/3 is not exact in float32, which shows at small powers: one step of Newton's method mends it.
    square = root * root
    return torch.where(cube > 0, root - (square * root - cube) / (3.0 * square), 0.0)


class ReserveAdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay and moments stored in bfloat16 or float32 (SPEC 9).

    w -= lr (m / (sqrt(v) + eps) + weight_decay w), the moments used before they are rounded for storage. Parameters are
    float32. NaN and infinite gradients count as 0, entry by entry.

    Args:
        params: parameters or groups; a group's own `weight_decay` replaces the default.
        lr, betas, eps, weight_decay: as in Adam; eps is added outside the root.
        moments: "bfloat16" (the second as its cube with a sign bit) or "float32".
        bias_correction: off in pretraining, on in finetuning.
        decay_to_start: decay toward the weights at the first step, kept in bfloat16, rather than toward 0.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.1,
        moments: Literal["bfloat16", "float32"] = "bfloat16",
        bias_correction: bool = False,
        decay_to_start: bool = False,
    ) -> None:
        if moments not in ("bfloat16", "float32"):
            raise ValueError(f"moments must be 'bfloat16' or 'float32'; got {moments!r}")
        if not 0 <= betas[0] < 1 or not 0 <= betas[1] < 1:
            raise ValueError(f"betas must be in [0, 1); got {betas}")
        if lr < 0 or eps <= 0 or weight_decay < 0:
            raise ValueError(f"lr and weight_decay must be >= 0 and eps > 0; got {lr}, {weight_decay}, {eps}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.moments = moments
        self.bias_correction = bias_correction
        self.decay_to_start = decay_to_start

    @property
    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.moments == "bfloat16" else torch.float32

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step over every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, w: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[w]
        if not state:
            self._start(w, state)
        state["step"] += 1
        tensors = {"w": w, "gradient": w.grad, **{name: state[name] for name in state if name != "step"}}
        if w.is_cpu and all(tensor.is_contiguous() for tensor in tensors.values()):
            pieces = [tensor.view(-1).split(CPU_PIECE) for tensor in tensors.values()]
            for piece in zip(*pieces, strict=True):
                self._update_piece(dict(zip(tensors, piece, strict=True)), group, state["step"])
        else:
            self._update_piece(tensors, group, state["step"])

    def _update_piece(self, piece: dict[str, torch.Tensor], group: dict[str, Any], step: torch.Tensor) -> None:
        w, (beta1, beta2) = piece["w"], group["betas"]
        gradient = torch.nan_to_num(piece["gradient"].float(), nan=0.0, posinf=0.0, neginf=0.0)
        m = piece["m"].to(torch.float32, copy=True).mul_(beta1).add_(gradient, alpha=1 - beta1)
        v = piece["v"]
        v = decode_second_moment(v) if self.moments == "bfloat16" else v.clone()
        v = v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        piece["m"].copy_(m)
        piece["v"].copy_(encode_second_moment(v) if self.moments == "bfloat16" else v)
        if self.bias_correction:
            m.div_(1 - beta1 ** int(step))
            v.div_(1 - beta2 ** int(step))
        update = m.div_(v.sqrt_().add_(group["eps"]))
        if group["weight_decay"]:
            away = w - piece["start"].float() if self.decay_to_start else w
            update.add_(away, alpha=group["weight_decay"])
        w.sub_(update, alpha=group["lr"])

    def _start(self, w: torch.Tensor, state: dict[str, Any]) -> None:
        state["step"] = torch.zeros((), dtype=torch.int64)
        state["m"] = torch.zeros_like(w, dtype=self._dtype)
        state["v"] = torch.zeros_like(w, dtype=self._dtype)
        if self.decay_to_start:
            state["start"] = w.detach().bfloat16()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also undoes the base class's conversion of all state to the parameters' dtype, which loses nothing here.

        Raises ValueError where the state is that of another kind of moments or of decay: its numbers mean other things.
        """
        dtypes = {"m": self._dtype, "v": self._dtype} | ({"start": torch.bfloat16} if self.decay_to_start else {})
        for state in state_dict["state"].values():
            if state.keys() != {"step", *dtypes}:
                raise ValueError(f"the state holds {sorted(state)}; this optimizer keeps {sorted({'step', *dtypes})}")
            if state["v"].dtype != self._dtype:
                raise ValueError(
                    f"the state has moments in {state['v'].dtype}; this optimizer keeps them in {self._dtype}"
                )
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name, dtype in dtypes.items():
                state[name] = state[name].to(dtype)


def parameter_groups(model: MerlotReserve, weight_decay: float, *, finetuning: bool = False) -> list[dict[str, Any]]:
    """Two groups, with and without decay: it applies to tensors of more than one axis in the official layout.

    That includes the biases of qkv and of the pooling's queries, keys and values. Finetuning decays only tensors of
    more than 4096 numbers.
    """
    parameters = dict(model.named_parameters())
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for entry in parameter_entries(model.config):
        parameter = parameters[entry.torch]
        large = not finetuning or parameter.numel() > FINETUNING_DECAY_SIZE
        groups[len(entry.shape) > 1 and large].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]
