"""A call of each function in the table of ops, for tests of what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

import reserve_kernels
from reserve_kernels import bias_quick_gelu, contrastive_loss, log_mel_spectrogram, rotary_attention
from reserve_kernels.registry import OPS

Arguments = dict[str, torch.Tensor]


class Call(NamedTuple):
    """`make()` draws the floating-point arguments; `run(arguments, backend)` is one tensor of the op's results."""

    make: Callable[[], Arguments]
    run: Callable[..., torch.Tensor]
    no_gradient: tuple[str, ...] = ()
    """Arguments that have no gradient."""


def _attention(arguments: Arguments, backend: str = "auto") -> torch.Tensor:
    cu_seqlens = torch.tensor([0, 4, 9], dtype=torch.int32, device=arguments["qkv"].device)
    return rotary_attention(**arguments, cu_seqlens=cu_seqlens, max_seqlen=5, backend=backend)


CALLS = {
    "rotary_attention": Call(
        lambda: {"qkv": torch.randn(9, 3, 2, 64), "angles": torch.randn(9, 16)}, _attention, no_gradient=("angles",)
    ),
    "contrastive_loss": Call(
        lambda: {
            **{name: torch.randn(6, 8) for name in ("x", "y")},
            **{name: torch.randn(3, 8) for name in ("x_extra", "y_extra")},
            "log_scale": torch.randn(()),
        },
        lambda arguments, backend="auto": contrastive_loss(**arguments, backend=backend).loss,
    ),
    "bias_quick_gelu": Call(
        lambda: {"x": torch.randn(6, 8), "bias": torch.randn(8)},
        lambda arguments, backend="auto": bias_quick_gelu(**arguments, backend=backend),
    ),
    "log_mel_spectrogram": Call(
        lambda: {"waveform": torch.randn(3000)},
        lambda arguments, backend="auto": log_mel_spectrogram(**arguments, backend=backend),
    ),
}
"""By the op's name. BF16AdamW is no function."""

FUNCTIONS = [op for op in OPS if not isinstance(getattr(reserve_kernels, op.name), type)]
CPU = torch.device("cpu")
ON_CPU = [
    (op.name, backend.name)
    for op in FUNCTIONS
    for backend in op.backends
    if backend.unavailable(CPU, torch.float32) is None
]
"""Function and back end, for all that run here."""

every_function = pytest.mark.parametrize("name", [op.name for op in FUNCTIONS])
every_backend = pytest.mark.parametrize(("name", "backend"), ON_CPU, ids=lambda value: value)
every_argument = pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, call in CALLS.items() for argument in call.make()]
)
