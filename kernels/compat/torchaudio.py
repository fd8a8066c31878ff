"""In place of torchaudio.transforms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from reserve_kernels.log_mel import log_mel_spectrogram
from reserve_kernels.log_mel.arguments import settings_of
from reserve_kernels.log_mel.filters import mel_filterbank

__all__ = ["MelSpectrogram"]


class MelSpectrogram(torch.nn.Module):
    """torchaudio.transforms.MelSpectrogram: [..., samples] -> mel [..., n_mels, frames], without a logarithm.

    The arguments and the state dict are those of the original. `power` is 1 or 2, and the bands lie between 0 Hz and
    half of the rate; for others, ValueError. It cannot be scripted, and `spectrogram` and `mel_scale`, the original's
    two steps, hold their buffers alone. A state dict whose bands are not this module's is an error.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 400,
        win_length: int | None = None,
        hop_length: int | None = None,
        f_min: float = 0.0,
        f_max: float | None = None,
        pad: int = 0,
        n_mels: int = 128,
        window_fn: Callable[..., torch.Tensor] = torch.hann_window,
        power: float = 2.0,
        normalized: bool | str = False,
        wkwargs: dict[str, Any] | None = None,
        center: bool = True,
        pad_mode: str = "reflect",
        onesided: bool | None = None,
        norm: str | None = None,
        mel_scale: str = "htk",
    ) -> None:
        super().__init__()
        if power not in (1, 2):
            raise ValueError(f"power must be 1 or 2; got {power}")
        if normalized not in (True, False, "window", "frame_length"):
            raise ValueError(f"normalized must be a bool, 'window' or 'frame_length'; got {normalized!r}")
        if norm not in (None, "slaney"):
            raise ValueError(f"norm must be None or 'slaney'; got {norm!r}")
        if onesided is not None:
            warnings.warn("onesided has no effect, as in torchaudio", stacklevel=2)
        self.sample_rate, self.n_fft, self.n_mels, self.pad = sample_rate, n_fft, n_mels, pad
        self.win_length = n_fft if win_length is None else win_length
        self.hop_length = self.win_length // 2 if hop_length is None else hop_length
        self.f_min, self.f_max, self.power, self.normalized = f_min, f_max, power, normalized
        window = window_fn(self.win_length, **(wkwargs or {}))
        self._arguments: dict[str, Any] = {
            # The original spaces its frequencies evenly from 0 to sample_rate // 2, of an odd n_fft too.
            "sample_rate": n_fft * (sample_rate // 2) / (n_fft // 2),
            # What divides the spectrum divides the samples, or the window.
            "sample_scale": n_fft**-0.5 if normalized == "frame_length" else 1.0,
            "n_fft": n_fft,
            "win_length": self.win_length,
            "hop_length": self.hop_length,
            "framing": "centered" if center else "inside",
            "pad_mode": pad_mode,
            "power": int(power),
            "n_mels": n_mels,
            "f_min": f_min,
            "f_max": float(sample_rate // 2) if f_max is None else f_max,
            "mel_scale": mel_scale,
            "mel_norm": norm or "none",
        }
        settings, _ = settings_of("torchaudio", self._arguments)
        self.spectrogram, self.mel_scale = torch.nn.Module(), torch.nn.Module()
        self.spectrogram.register_buffer("window", window)
        self.mel_scale.register_buffer("fb", mel_filterbank(*settings.bank).T.to(torch.get_default_dtype()))

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """[..., samples] floating-point -> [..., n_mels, frames] in the dtype of samples times window."""
        if self.pad > 0:
            waveform = torch.nn.functional.pad(waveform, (self.pad, self.pad))
        window = self.spectrogram.get_buffer("window")
        out_dtype = torch.promote_types(waveform.dtype, window.dtype)
        if self.normalized in (True, "window"):
            window = window / window.square().sum().sqrt()
        return log_mel_spectrogram(waveform, preset="torchaudio", window=window, out_dtype=out_dtype, **self._arguments)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        bank, own = state_dict.get(f"{prefix}mel_scale.fb"), self.mel_scale.get_buffer("fb")
        if bank is None or own.is_meta or bank.is_meta:
            return
        own = own.to(bank.device, bank.dtype)
        if bank.shape != own.shape or not torch.allclose(bank, own, rtol=1e-2, atol=1e-2 * float(own.abs().max())):
            # By convention, what is wrong is gathered and raised together.
            *_, errors = arguments
            errors.append(f"{prefix}mel_scale.fb holds other bands than those of this module's arguments")
