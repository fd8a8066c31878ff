"""BF16AdamW: AdamW with its moments in bfloat16, a fused update of all tensors (SPEC 9)."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import torch

from reserve_kernels.adamw.availability import BACKENDS, AdamwBackend
from reserve_kernels.adamw.ops import adamw_
from reserve_kernels.adamw.options import (
    MOMENTS,
    SHAPES_STATE,
    check_group,
    check_options,
    is_stochastic,
    plain_options,
    state_dtypes,
)
from reserve_kernels.adamw.shards import first_element, local_tensors
from reserve_kernels.adamw.stochastic import tensor_key

__all__ = ["BF16AdamW"]

OP = "BF16AdamW"


class BF16AdamW(torch.optim.Optimizer):
    """AdamW with decoupled weight decay whose moments take half the memory of float32 ones (SPEC 9).

    w -= lr (m / (sqrt(v) + eps) + weight_decay w), with the moments before they are rounded for storage: m to bfloat16,
    v as its cube in bfloat16 with a sign that adds a bit, as in the training of the released MERLOT Reserve. NaN and
    infinite gradient entries count as 0, and finite ones are clamped to 2^21 (2^63 with float32 moments), which keeps v
    finite.

    The state of a parameter is `step` (int64, a scalar on the CPU), `m` and `v` (of the parameter's shape, in the dtype
    of `moments`) and, with decay_to_start, `start` (bfloat16).

    Args:
        params: float32 parameters, FSDP2's sharded ones too, or groups of them. All options but `backend` live in
            `param_groups`: they may differ between groups and change between steps, except `moments` and
            `decay_to_start`, which say what the state holds. Other entries of a group are left alone, but those of
            torch.optim.AdamW that would change a step, such as `maximize`, are refused.
        lr, betas, eps, weight_decay: as in Adam; eps, a normal float32 number, is added outside the root. Python or
            NumPy numbers, not tensors, also where you or a scheduler change them in `param_groups`.
        moments: "bfloat16" or "float32".
        bias_correction: divide the moments by 1 - beta^step, as Adam does; the released models do so in finetuning.
        decay_to_start: decay toward the weights of the first step, stored in bfloat16, instead of toward 0.
        rounding: how bfloat16 moments are rounded. "nearest" is what the released training did. It loses changes that
            are smaller than half the distance to the next stored value: v drifts at beta2 >= 0.99, m at beta1 >= 0.9,
            and v below 2^-42 (gradients below 5e-7) becomes 0. "stochastic" keeps the mean at any beta. "auto" is
            "nearest" for the released betas, (0.9, 0.98), else "stochastic".
        seed: of the random bits of stochastic rounding, from 0 to 2^64 - 1. They are a function of the seed, the
            parameter's place among all parameters, its step, and the element's index: the same on every device and
            back end, with any number of threads, and of ranks if parameters are sharded on dimension 0.
        backend: "auto" or a name from `reserve_kernels.backends()`; "native" and "cuda" need contiguous parameters.

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype or value; the message names it.
        TypeError, ValueError: in `step`, an option set later is invalid, or a gradient or the state does not match its
            parameter.
        RuntimeError: in `step`, the named backend cannot run on the parameters, or a CUDA graph captures a step with
            stochastic rounding, whose random bits it would repeat.

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
        rounding: Literal["auto", "nearest", "stochastic"] = "auto",
        seed: int = 0,
        backend: str = "auto",
    ) -> None:
        if backend != "auto":
            BACKENDS[backend]  # raises ValueError for an unknown name
        self.backend = backend
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "moments": moments,
            "bias_correction": bias_correction,
            "decay_to_start": decay_to_start,
            "rounding": rounding,
            "seed": seed,
        }
        check_options(options)
        super().__init__(params, options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group. Raises TypeError or ValueError naming what is wrong in it."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_group(group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise
        group.update(plain_options(group))

    def state_dict(self) -> dict[str, Any]:
        """The state and options; their numbers are Python's, which torch.load(weights_only=True) takes."""
        saved = super().state_dict()
        return {**saved, "param_groups": [group | plain_options(group) for group in saved["param_groups"]]}

    # A compiler would recompile it for each learning rate and gain nothing. torch.compiler.disable would import triton.
    @torch._disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step over every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        places = itertools.count()
        for group in self.param_groups:
            check_options(group)
            dtypes, seed = state_dtypes(group), int(group["seed"])
            stochastic, correct = is_stochastic(group), group["bias_correction"]
            # One call updates the parameters of one device, contiguity and step count for bias correction.
            together: dict[Any, _Updates] = defaultdict(lambda: _Updates([], [], []))
            for parameter, place in zip(group["params"], places, strict=False):
                if parameter.grad is None:
                    continue
                tensors = self._prepare(parameter, dtypes)
                contiguous = all(tensor.is_contiguous() for tensor in (tensors[0], *tensors[2:]))
                step = int(self.state[parameter]["step"]) if stochastic or correct else 0
                updates = together[parameter.device, contiguous, step if correct else 0]
                updates.tensors.append(tensors)
                if stochastic:
                    updates.keys.append(tensor_key(seed, step, place))
                    updates.firsts.append(first_element(parameter))
            for (device, contiguous, count), updates in together.items():
                self._update(updates, group, self._choose(device, contiguous, MOMENTS[group["moments"]]), count)
        return loss

    def _prepare(self, w: torch.Tensor, dtypes: dict[str, torch.dtype]) -> list[torch.Tensor]:
        """Makes the state, of `dtypes`, at the first step and counts the step.

        Returns this process's part of the parameter, its gradient, moments and start.
        """
        g = w.grad
        assert g is not None
        if g.is_sparse:
            raise TypeError(f"{OP} takes no sparse gradients; got one for a parameter of shape {tuple(w.shape)}")
        state = self.state[w]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64, device="cpu")
            for name in ("m", "v"):
                state[name] = torch.zeros_like(w, dtype=dtypes[name])
            if "start" in dtypes:
                state["start"] = w.detach().bfloat16()
        elif len(state) != 1 + len(dtypes) or not state.keys() > dtypes.keys():
            raise ValueError(
                f"{OP}: the state of a parameter of shape {tuple(w.shape)} holds {sorted(state)}; its group keeps "
                f"{sorted({'step', *dtypes})}: decay_to_start cannot change after the first step"
            )
        tensors = local_tensors([w, g, *(state[name] for name in dtypes)])
        _check_update(tensors, dtypes)
        state["step"] += 1
        return tensors

    def _choose(self, device: torch.device, contiguous: bool, moments: torch.dtype) -> str:
        def refuse(backend: AdamwBackend) -> str | None:
            return None if contiguous or backend.takes_strided else "it needs contiguous parameters and moments"

        return BACKENDS.choose(self.backend, device, moments, refuse).name

    def _update(self, updates: _Updates, group: dict[str, Any], backend: str, count: int) -> None:
        weights, gradients, m, v, *starts = (list(tensors) for tensors in zip(*updates.tensors, strict=True))
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
            updates.keys,
            updates.firsts,
            backend,
        )

    def __getstate__(self) -> dict[str, Any]:
        """For copying and pickling: the base class drops the attributes of subclasses."""
        return {**super().__getstate__(), "backend": self.backend}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores options and state. Options that `state_dict` lacks, as older ones do, keep their values.

        Raises ValueError if `moments` or `decay_to_start` differ, which say what the state holds.
        """
        own, saved = self.param_groups, state_dict["param_groups"]
        if len(own) == len(saved):  # else the base class raises
            both = zip(own, saved, strict=True)
            groups = [{name: mine[name] for name in self.defaults} | group for mine, group in both]
            _check_saved(own, groups, state_dict["state"])
            state_dict = {**state_dict, "param_groups": groups}
        super().load_state_dict(state_dict)
        # The base class converts all state to the parameters' dtype, which loses nothing.
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter, {})
                if "step" in state:
                    # Counted on the host; a checkpoint may have been read onto a GPU.
                    state["step"] = torch.as_tensor(state["step"]).to("cpu", torch.int64)
                for name, dtype in state_dtypes(group).items():
                    if name in state:
                        state[name] = state[name].to(dtype)


class _Updates(NamedTuple):
    """Parameters that one call updates: this process's tensors of each and, for stochastic rounding, the key of its
    random bits and the index of its first element."""

    tensors: list[list[torch.Tensor]]
    keys: list[int]
    firsts: list[int]


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


def _check_saved(own: list[dict[str, Any]], saved: list[dict[str, Any]], states: dict[Any, Any]) -> None:
    """Validates saved groups and states against the optimizer's `own` groups."""
    for number, (mine, group) in enumerate(zip(own, saved, strict=True)):
        dtypes = state_dtypes(mine)
        for state in (states[i] for i in group["params"] if i in states):
            if state.keys() != {"step", *dtypes}:
                raise ValueError(f"the state holds {sorted(state)}; this optimizer keeps {sorted({'step', *dtypes})}")
            if state["v"].dtype != dtypes["v"]:
                kept = dtypes["v"]
                raise ValueError(f"the state has moments in {state['v'].dtype}; this optimizer keeps them in {kept}")
        for name in SHAPES_STATE:
            if group[name] != mine[name]:
                raise ValueError(
                    f"the saved group {number} has {name}={group[name]!r}; this optimizer's has {mine[name]!r}"
                )
