"""BF16AdamW: AdamW with its moments in bfloat16, a fused update of all tensors (SPEC 9)."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch

from reserve_kernels.adamw.availability import BACKENDS, AdamwBackend
from reserve_kernels.adamw.ops import adamw_
from reserve_kernels.adamw.reference import SMALLEST_NORMAL
from reserve_kernels.checks import check_real, check_tensor

__all__ = ["BF16AdamW"]

OP = "BF16AdamW"
MOMENTS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class BF16AdamW(torch.optim.Optimizer):
    """AdamW with decoupled weight decay whose moments take half the memory of float32 ones (SPEC 9).

    w -= lr (m / (sqrt(v) + eps) + weight_decay w), with the moments before they are rounded for storage: m to bfloat16,
    v as its cube in bfloat16 with a sign that adds a bit, as in the training of the released MERLOT Reserve. NaN and
    infinite gradient entries count as 0, and finite ones are clamped to 2^21 (2^63 with float32 moments), which keeps v
    finite.

    Args:
        params: float32 parameters, FSDP2's sharded ones too, or groups of them; a group's own `lr`, `betas`, `eps` and
            `weight_decay` replace the defaults.
        lr, betas, eps, weight_decay: as in Adam; eps, a normal float32 number, is added outside the root. Python or
            NumPy numbers, not tensors, also where you or a scheduler change them in `param_groups`.
        moments: "bfloat16" or "float32".
        bias_correction: divide the moments by 1 - beta^step, as Adam does; the released models do so in finetuning.
        decay_to_start: decay toward the weights of the first step, stored in bfloat16, instead of toward 0.
        backend: "auto" or a name from `reserve_kernels.backends()`; "native" and "cuda" need contiguous parameters.

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype or value; the message names it.
        TypeError, ValueError: in `step`, a number set later is invalid, or a gradient or the state does not match its
            parameter.
        RuntimeError: in `step`, the named backend cannot run on the parameters.

    It is deterministic, on a CPU with any number of threads. A step does not wait for the GPU. A CUDA graph that
    captured one keeps its lr and, with bias_correction, its step count.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.1,
        moments: Literal["bfloat16", "float32"] = "bfloat16",
        bias_correction: bool = False,
        decay_to_start: bool = False,
        backend: str = "auto",
    ) -> None:
        if moments not in MOMENTS:
            raise ValueError(f"moments must be 'bfloat16' or 'float32'; got {moments!r}")
        if backend != "auto":
            BACKENDS[backend]  # raises ValueError for an unknown name
        self.moments = moments
        self.bias_correction = bias_correction
        self.decay_to_start = decay_to_start
        self.backend = backend
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group. Raises TypeError or ValueError naming what is wrong in it."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check_group(group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    # A compiler would recompile it for each learning rate and gain nothing. torch.compiler.disable would import triton.
    @torch._disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step over every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _check_numbers(group)  # schedulers and users change them
            # One call updates the parameters of one device, contiguity and step count.
            together = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    place, tensors = self._prepare(parameter)
                    together[place].append(tensors)
            for (device, contiguous, count), updates in together.items():
                self._update(updates, group, self._choose(device, contiguous), count)
        return loss

    def _prepare(self, w: torch.Tensor) -> tuple[tuple[torch.device, bool, int], list[torch.Tensor]]:
        """Counts the step and makes the state at the first one.

        Returns the key of the call that updates the parameter (device, contiguity, step count for bias correction), and
        the parameter with its gradient, moments and start.
        """
        g = w.grad
        assert g is not None
        if g.is_sparse:
            raise TypeError(f"{OP} takes no sparse gradients; got one for a parameter of shape {tuple(w.shape)}")
        state = self.state[w]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["m"] = torch.zeros_like(w, dtype=MOMENTS[self.moments])
            state["v"] = torch.zeros_like(w, dtype=MOMENTS[self.moments])
            if self.decay_to_start:
                state["start"] = w.detach().bfloat16()
        tensors = _shards([w, g, *(state[name] for name in self._dtypes)])
        _check_update(tensors, self._dtypes)
        state["step"] += 1
        contiguous = all(tensor.is_contiguous() for tensor in (tensors[0], *tensors[2:]))
        return (w.device, contiguous, int(state["step"]) if self.bias_correction else 0), tensors

    @functools.cached_property
    def _dtypes(self) -> dict[str, torch.dtype]:
        """The dtype of each tensor in the state of a parameter, except the step."""
        dtype = MOMENTS[self.moments]
        return {"m": dtype, "v": dtype} | ({"start": torch.bfloat16} if self.decay_to_start else {})

    def _choose(self, device: torch.device, contiguous: bool) -> str:
        def refuse(backend: AdamwBackend) -> str | None:
            return None if contiguous or backend.takes_strided else "it needs contiguous parameters and moments"

        return BACKENDS.choose(self.backend, device, MOMENTS[self.moments], refuse).name

    def _update(self, updates: list[list[torch.Tensor]], group: dict[str, Any], backend: str, count: int) -> None:
        weights, gradients, m, v, *starts = (list(tensors) for tensors in zip(*updates, strict=True))
        beta1, beta2 = group["betas"]
        adamw_(
            weights,
            gradients,
            m,
            v,
            starts[0] if starts else [],
            float(group["lr"]),
            float(beta1),
            float(beta2),
            float(group["eps"]),
            float(group["weight_decay"]),
            1 / (1 - beta1**count) if count else 1.0,
            1 / (1 - beta2**count) if count else 1.0,
            backend,
        )

    def __getstate__(self) -> dict[str, Any]:
        """For copying and pickling: the base class drops the attributes of subclasses."""
        own = ("moments", "bias_correction", "decay_to_start", "backend")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the moments' dtypes: the base class converts all state to the parameters' dtype, losslessly here.

        Raises ValueError if the state is of other `moments` or `decay_to_start`.
        """
        dtype, dtypes = MOMENTS[self.moments], self._dtypes
        for state in state_dict["state"].values():
            if state.keys() != {"step", *dtypes}:
                raise ValueError(f"the state holds {sorted(state)}; this optimizer keeps {sorted({'step', *dtypes})}")
            if state["v"].dtype != dtype:
                raise ValueError(f"the state has moments in {state['v'].dtype}; this optimizer keeps them in {dtype}")
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name, kept in dtypes.items():
                state[name] = state[name].to(kept)


def _shards(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """This process's shards of a parameter's tensors if they are distributed (DTensor), else the tensors."""
    if not hasattr(tensors[0], "to_local"):
        return tensors
    placements = [getattr(tensor, "placements", None) for tensor in tensors]
    if any(other != placements[0] for other in placements):
        raise ValueError(f"{OP}: a parameter, its gradient and its state must have one placement; got {placements}")
    return [tensor.to_local() for tensor in tensors]  # type: ignore[attr-defined]


def _check_update(tensors: list[torch.Tensor], dtypes: dict[str, torch.dtype]) -> None:
    """Validates a parameter, its gradient and its state of `dtypes`, which users can replace and native code trusts."""
    shape, device = tensors[0].shape, tensors[0].device
    wanted = {"parameter": torch.float32, "gradient": torch.float32, **dtypes}
    for tensor, (name, dtype) in zip(tensors, wanted.items(), strict=True):
        if tensor.dtype is not dtype or tensor.shape != shape or tensor.device != device:
            raise ValueError(
                f"{OP}: the {name} of a parameter of shape {tuple(shape)} on {device} must be {dtype} of that shape "
                f"on that device; got {tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"
            )


def _check_group(group: dict[str, Any]) -> None:
    for parameter in group["params"]:
        check_tensor("params", parameter, (torch.float32,))
    if len(set(group["params"])) < len(group["params"]):
        raise ValueError("params must not hold a parameter twice")
    _check_numbers(group)


def _check_numbers(group: dict[str, Any]) -> None:
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
