"""The parameters of a log-mel spectrogram, and what follows from them: frames, shapes, windows and filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from reserve_kernels.log_mel.constants import kept_on
from reserve_kernels.log_mel.filters import mel_filterbank
from reserve_kernels.log_mel.padding import source_of
from reserve_kernels.log_mel.windows import GIVEN, WINDOWS

FRAMINGS = ("centered", "centered_window", "inside", "inside_window", "kaldi_centered")
"""Where frames lie. A frame is `n_fft` samples, of which the window weighs the middle `win_length`; in the framings
that end in `window`, and in Kaldi's, it is the window alone. `centered`: frame f is centred at sample f hop_length, as
in torch.stft and librosa; `centered_window`: the same, as in transformers' audio_utils. `inside`: all frames that lie
inside the clip, the first at its start, as in torch.stft(center=False); `inside_window`: the same, as in Kaldi's
snip_edges and VGGish. `kaldi_centered`: Kaldi without snip_edges, a frame for each hop_length samples, rounded."""

LOGS = {"none": 0.0, "ln": 1.0, "log10": 1.0 / math.log(10.0), "db": 10.0 / math.log(10.0)}
"""Logarithm -> what the natural one is multiplied by. Decibels of amplitudes (power=1) are twice that."""


@dataclass(frozen=True)
class LogMelSettings:
    """The parameters after playback speed is applied, in samples, Hz and power. log_mel_spectrogram describes them."""

    pad_mode: str
    sample_rate: float
    n_fft: int
    hop_length: int
    n_mels: int
    f_min: float
    f_max: float
    offset: float = 0.1
    win_length: int = 0
    """0: n_fft"""
    window: str = "hann_symmetric"
    framing: str = "centered"
    drop_last: bool = False
    sample_scale: float = 1.0
    remove_dc: bool = False
    preemphasis: float = 0.0
    power: int = 2
    mel_scale: str = "slaney"
    mel_norm: str = "slaney"
    log: str = "ln"
    floor: float = 0.0
    relative: bool = True
    dynamic_range: float = math.inf
    out_scale: float = 1.0
    out_shift: float = 0.0
    bands_first: bool = False

    def __hash__(self) -> int:
        # Caches are asked several times a call, and hashing all fields takes as long as ten frames.
        kept = self.__dict__.get("_hash")
        if kept is None:
            kept = self.__dict__["_hash"] = hash(self._values())
        return kept

    def __reduce__(self) -> tuple[type[LogMelSettings], tuple[Any, ...]]:
        # Without the hash, which differs from process to process.
        return LogMelSettings, self._values()

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in _KINDS)

    def packed(self) -> tuple[list[int], list[float], str]:
        """Integers, numbers and names, which a custom operator takes; `unpacked` is the inverse."""
        values = [(kind, getattr(self, name)) for name, kind in _KINDS.items()]
        # A compiler's list of integers that it does not know takes no bool.
        integers = [int(v) if kind == "bool" else v for kind, v in values if kind in ("int", "bool")]
        numbers = [v for kind, v in values if kind == "float"]
        return integers, numbers, ",".join(v for kind, v in values if kind == "str")

    @staticmethod
    def unpacked(integers: Sequence[int], numbers: Sequence[float], names: str) -> LogMelSettings:
        """The settings that `packed` made these of."""
        whole = iter(integers)
        sources = {"int": whole, "bool": map(bool, whole), "float": iter(numbers), "str": iter(names.split(","))}
        return LogMelSettings(*(next(sources[kind]) for kind in _KINDS.values()))  # type: ignore[arg-type]

    @property
    def length(self) -> int:
        """Samples that the window weighs."""
        return self.win_length or self.n_fft

    @property
    def start(self) -> int:
        """The first sample of frame 0 that the window weighs; before the clip if it is negative."""
        if self.framing == "kaldi_centered":
            return self.hop_length // 2 - self.length // 2
        pad = self._frame // 2 if self.framing.startswith("centered") else 0
        return (self._frame - self.length) // 2 - pad

    @property
    def frame_extra(self) -> int:
        """A clip of n samples, at least one, has max(0, floor((n + frame_extra) / hop_length)) frames."""
        if self.framing == "kaldi_centered":
            extra = self.hop_length // 2
        else:
            pad = self._frame // 2 if self.framing.startswith("centered") else 0
            extra = self.hop_length + 2 * pad - self._frame
        return extra - self.hop_length if self.drop_last else extra

    @property
    def _frame(self) -> int:
        return self.length if self.framing.endswith("window") else self.n_fft

    @property
    def log_factor(self) -> float:
        """What the natural logarithm is multiplied by; 0 without one."""
        return LOGS[self.log] * (2.0 if self.log == "db" and self.power == 1 else 1.0)

    @property
    def bank(self) -> tuple[float, int, int, float, float, str, str]:
        """The arguments of `mel_filterbank`."""
        return (
            self.sample_rate,
            self.n_fft,
            self.n_mels,
            self.f_min,
            self.f_max,
            self.mel_scale,
            self.mel_norm,
        )

    def frames(self, samples: int) -> int:
        """The number of frames of a clip of `samples` samples, at least one."""
        extra = self.frame_extra
        frames = (samples + extra) // self.hop_length
        # A centred frame of an even length is there for every clip: no comparison that a compiler would have to guard.
        return frames if extra >= 0 else torch.sym_max(frames, 0)

    def out_shape(
        self, shape: torch.Size, offsets: torch.Tensor | None = None, max_samples: int = 0, columns: int = 0
    ) -> tuple[int, ...]:
        """Shape of the output for a waveform of `shape` with `columns` more columns than bands."""
        clips = shape[:-1] if offsets is None else (offsets.shape[0] - 1,)
        rows = (self.frames(shape[-1] if offsets is None else max_samples), self.n_mels + columns)
        return (*clips, *(reversed(rows) if self.bands_first else rows))

    def window_for(self, like: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        """The window [length] in the dtype and on the device of `like`, computed in float64; `given` if that is it."""
        if self.window == GIVEN:
            assert given is not None
            return given.to(like.device, like.dtype)

        def make() -> torch.Tensor:
            return WINDOWS[self.window](self.length).to(like.device, like.dtype)

        return kept_on(like.device, ("window", self.window, self.length, like.dtype), make)

    def filters(self, like: torch.Tensor) -> torch.Tensor:
        """The filterbank in the dtype and on the device of `like`."""
        return kept_on(
            like.device,
            ("filters", self.bank, like.dtype),
            lambda: mel_filterbank(*self.bank).to(like.device, like.dtype),
        )

    def span(self, first: int, frames: int, device: torch.device) -> torch.Tensor:
        """Positions in a clip of the samples of `frames` frames from number `first` on, from the first to the last."""
        start = first * self.hop_length + self.start
        return torch.arange(start, start + (frames - 1) * self.hop_length + self.length, device=device)

    def index(
        self, waveform: torch.Tensor, offsets: torch.Tensor | None, first: int = 0, frames: int = 1
    ) -> torch.Tensor:
        """For each position of `span` the index of the sample of `waveform` that it repeats; -1 for zeros.

        int64 [span], or with offsets [clips, span].
        """
        position = self.span(first, frames, waveform.device)
        if offsets is None:
            return source_of(position, waveform.shape[-1], self.pad_mode)
        start, length = offsets[:-1, None].long(), offsets.diff()[:, None].long()
        source = source_of(position.expand(len(start), -1), length, self.pad_mode)
        return torch.where((length > 0) & (source >= 0), start + source, -1)

    def unused_frames(self, offsets: torch.Tensor, max_samples: int) -> torch.Tensor:
        """Which frames [clips, frames] lie beyond the last one of their clip."""
        length = offsets.diff()
        own = torch.where(length > 0, (length + self.frame_extra).div(self.hop_length, rounding_mode="floor"), 0)
        return torch.arange(self.frames(max_samples), device=offsets.device) >= own[:, None]


# `from __future__ import annotations` leaves the types as text.
_KINDS = {field.name: str(field.type) for field in fields(LogMelSettings)}
