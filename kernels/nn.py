"""The ops as modules of torch.nn: settings are checked when a module is made, and what is learned is a parameter.

>>> import torch
>>> from reserve_kernels import nn
>>> mel, loss = nn.LogMelSpectrogram("whisper"), nn.ContrastiveLoss()
>>> mel(torch.zeros(2, 16000)).shape
torch.Size([2, 80, 100])
>>> loss(torch.randn(8, 32), torch.randn(8, 32)).shape
torch.Size([])
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from reserve_kernels.attention import rotary_attention
from reserve_kernels.attention.arguments import HEAD_SIZES
from reserve_kernels.attention.availability import BACKENDS as attention_backends
from reserve_kernels.backends import Backends
from reserve_kernels.contrastive import Targets, contrastive_loss
from reserve_kernels.contrastive.availability import BACKENDS as contrastive_backends
from reserve_kernels.log_mel import log_mel_spectrogram
from reserve_kernels.log_mel.arguments import check_output, settings_of
from reserve_kernels.log_mel.availability import BACKENDS as log_mel_backends
from reserve_kernels.quick_gelu import bias_quick_gelu

__all__ = ["ContrastiveLoss", "LinearQuickGELU", "LogMelSpectrogram", "RotaryAttention"]


def _check_backend(backends: Backends[Any], name: str) -> None:
    """Raises ValueError unless there is a back end of that name; whether it runs depends on the call."""
    if name != "auto":
        backends[name]


class LogMelSpectrogram(nn.Module):
    """`log_mel_spectrogram` with its settings. A window that is a tensor becomes a buffer.

    Args:
        preset, playback_speed, append_speed, out_dtype, backend: as in the function.
        arguments: what overrides the preset, by the function's names.

    Raises:
        TypeError, ValueError: as the function, when the module is made.
    """

    window: torch.Tensor | None

    def __init__(
        self,
        preset: str = "reserve",
        *,
        playback_speed: int = 1,
        append_speed: bool = False,
        out_dtype: torch.dtype | None = None,
        backend: str = "auto",
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.settings, window = settings_of(preset, arguments, playback_speed)
        check_output(self.settings, append_speed, out_dtype)
        _check_backend(log_mel_backends, backend)
        self._preset = preset
        self._arguments = {name: value for name, value in arguments.items() if name != "window" or window is None}
        self._others: dict[str, Any] = {
            "playback_speed": playback_speed,
            "append_speed": append_speed,
            "out_dtype": out_dtype,
            "backend": backend,
        }
        self.register_buffer("window", window, persistent=False)

    def forward(
        self, waveform: torch.Tensor, offsets: torch.Tensor | None = None, max_samples: int | None = None
    ) -> torch.Tensor:
        """[..., samples] -> [..., frames, n_mels]; `offsets` and `max_samples` as in the function."""
        arguments = self._arguments if self.window is None else self._arguments | {"window": self.window}
        return log_mel_spectrogram(
            waveform, preset=self._preset, offsets=offsets, max_samples=max_samples, **arguments, **self._others
        )

    def extra_repr(self) -> str:
        changed = "".join(f", {name}={value!r}" for name, value in self._arguments.items())
        return f"{self._preset!r}{changed}"


class ContrastiveLoss(nn.Module):
    """`contrastive_loss` with a learned scale, and for `kind="sigmoid"` a learned bias.

    Args:
        kind: "softmax" (CLIP) or "sigmoid" (SigLIP).
        log_scale: the first logarithm of the inverse temperature; None for the papers' own, ln(1 / 0.07) of CLIP and
            ln 10 of SigLIP.
        bias: the first bias of "sigmoid"; None for SigLIP's -10.
        learn: whether scale and bias are parameters, or else buffers.
        normalize, max_scale, group, exchange, backend, logits_budget: as in the function.
    """

    bias: torch.Tensor | None
    log_scale: torch.Tensor

    def __init__(
        self,
        kind: str = "softmax",
        *,
        log_scale: float | None = None,
        bias: float | None = None,
        learn: bool = True,
        normalize: bool = True,
        max_scale: float | None = 100.0,
        group: dist.ProcessGroup | None = None,
        exchange: str = "gather",
        backend: str = "auto",
        logits_budget: int | None = None,
    ) -> None:
        super().__init__()
        if kind not in ("softmax", "sigmoid"):
            raise ValueError(f"kind must be 'softmax' or 'sigmoid'; got {kind!r}")
        if kind == "softmax" and bias is not None:
            raise ValueError("bias is for kind='sigmoid': it does not change a softmax")
        if exchange not in ("gather", "ring"):
            raise ValueError(f"exchange must be 'gather' or 'ring'; got {exchange!r}")
        _check_backend(contrastive_backends, backend)
        self.kind, self.group = kind, group
        self._options: dict[str, Any] = {
            "normalize": normalize,
            "max_scale": max_scale,
            "exchange": exchange,
            "backend": backend,
            "logits_budget": logits_budget,
        }
        if log_scale is None:
            log_scale = math.log(1 / 0.07) if kind == "softmax" else math.log(10.0)
        self._hold("log_scale", log_scale, learn)
        if kind == "sigmoid":
            self._hold("bias", -10.0 if bias is None else bias, learn)
        else:
            self.bias = None

    def _hold(self, name: str, value: float, learn: bool) -> None:
        tensor = torch.tensor(float(value), dtype=torch.float32)
        if learn:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        x_extra: torch.Tensor | None = None,
        y_extra: torch.Tensor | None = None,
        targets: Targets | tuple[Targets, Targets] | None = None,
    ) -> torch.Tensor:
        """x, y [pairs, dim] -> the mean loss, a scalar. The function returns each pair's too."""
        return contrastive_loss(
            x,
            y,
            self.log_scale,
            kind=self.kind,
            bias=self.bias,
            targets=targets,
            x_extra=x_extra,
            y_extra=y_extra,
            group=self.group,
            **self._options,
        ).loss

    def extra_repr(self) -> str:
        return f"{self.kind!r}"


class LinearQuickGELU(nn.Linear):
    """A linear layer and its activation: bias_quick_gelu(x @ weight.T, bias), [..., in] -> [..., out].

    The state dict is that of torch.nn.Linear.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return bias_quick_gelu(nn.functional.linear(input, self.weight), self.bias)


class RotaryAttention(nn.Module):
    """Multi-head self-attention over packed sequences: projection, `rotary_attention`, projection.

    Args:
        dim: width of the tokens.
        heads: `dim / heads` is the size of a head.
        rotary, scale, backend: as in the function.
        bias: whether the projections have one.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        rotary: str = "standard",
        scale: float | None = None,
        bias: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads != 0 or dim // heads not in HEAD_SIZES:
            raise ValueError(
                f"dim / heads must be one of {', '.join(map(str, HEAD_SIZES))}; got dim={dim}, heads={heads}"
            )
        if rotary not in ("reserve", "standard"):
            raise ValueError(f"rotary must be 'reserve' or 'standard'; got {rotary!r}")
        _check_backend(attention_backends, backend)
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        self._options: dict[str, Any] = {"rotary": rotary, "scale": scale, "backend": backend}

    def forward(
        self,
        x: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        angles: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[tokens, dim] of all sequences one after another -> [tokens, dim]; the rest as in the function."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        mixed = rotary_attention(
            qkv,
            cu_seqlens,
            max_seqlen,
            angles=angles,
            segment_ids=segment_ids,
            **self._options,
        )
        return self.out(mixed.flatten(1))
