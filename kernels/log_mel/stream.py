"""Log-mel spectrograms of sound that arrives in chunks."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from reserve_kernels.checks import FLOATING, check_same_device, check_tensor
from reserve_kernels.log_mel.arguments import check_output, settings_of
from reserve_kernels.log_mel.availability import BACKENDS
from reserve_kernels.log_mel.ops import Call, spectrogram
from reserve_kernels.log_mel.padding import source_of


class LogMelStream:
    """Frames of a clip as soon as all of their samples are there: those of log_mel_spectrogram for the whole clip.

        >>> import torch
        >>> from reserve_kernels import LogMelStream
        >>> stream = LogMelStream("kaldi")
        >>> [len(stream.push(torch.zeros(1000))) for _ in range(3)], len(stream.finish())
        ([4, 7, 6], 0)

    It holds the samples that later frames need, at most some windows and the last chunk. It has no gradient. A push
    that raises an error leaves it as it was.

    Args:
        preset, playback_speed, arguments: as in log_mel_spectrogram, up to `bands_first`.
        out_dtype, backend: as in log_mel_spectrogram.

    Raises:
        TypeError, ValueError: as log_mel_spectrogram; and for a `dynamic_range` other than math.inf or circular
            padding, which need the end of the clip.
    """

    def __init__(
        self,
        preset: str = "reserve",
        *,
        playback_speed: int = 1,
        out_dtype: torch.dtype | None = None,
        backend: str = "auto",
        **arguments: Any,
    ) -> None:
        self._settings, self._window = settings_of(preset, arguments, playback_speed)
        if self._settings.dynamic_range < math.inf:
            raise ValueError(
                f"dynamic_range must be math.inf in a stream, since the largest value is known at the end of the clip; "
                f"got {self._settings.dynamic_range}"
            )
        if self._settings.pad_mode == "circular":
            raise ValueError("pad_mode must not be 'circular' in a stream: it needs the end of the clip")
        check_output(self._settings, False, out_dtype)
        if backend != "auto":
            BACKENDS[backend]  # raises ValueError for an unknown name
        self._out_dtype, self._backend = out_dtype, backend
        # The frames of a stretch of samples that begins with the first one's.
        self._inside = dataclasses.replace(
            self._settings, framing="inside_window", pad_mode="constant", drop_last=False
        )
        self._reset()

    def _reset(self) -> None:
        self._held: torch.Tensor | None = None
        self._first = 0
        """Number of the first sample that is held."""
        self._received = 0
        self._done = 0
        """Frames returned."""

    def push(self, chunk: torch.Tensor) -> torch.Tensor:
        """The frames that `chunk` completes.

        Args:
            chunk: [..., samples] of the dtypes of log_mel_spectrogram; any number of samples. All chunks of a clip have
                one shape but for the samples, one dtype and one device.

        Returns:
            [..., frames, n_mels], or [..., n_mels, frames] with `bands_first`; often no frame.
        """
        check_tensor("chunk", chunk, (*FLOATING, torch.int16))
        if chunk.dim() == 0:
            raise ValueError("chunk must be [..., samples]; got a scalar")
        if self._window is not None:
            check_same_device("window", self._window, "chunk", chunk)
        chunk = chunk.detach()
        before = self._held, self._received
        if self._held is None:
            self._held = chunk.clone()
        else:
            self._check_like_earlier(chunk, self._held)
            self._held = torch.cat((self._held, chunk), dim=-1)
        self._received += chunk.shape[-1]
        try:
            out = self._frames(self._ready())
        except BaseException:
            self._held, self._received = before
            raise
        self._forget(self._done * self._settings.hop_length + self._settings.start)
        return out

    def _ready(self) -> int:
        """How many frames all chunks so far complete, returned ones included."""
        s = self._settings
        # Frame f needs the samples before f hop_length + start + length. Padding at the start is of samples up to
        # number -start; a shorter clip is padded to and fro, for which all of it must be there.
        ready = (self._received - s.start - s.length) // s.hop_length + 1
        if self._received <= -s.start and s.pad_mode in ("reflect", "symmetric"):
            ready = 0
        # A frame counts once the clip is long enough for it, which can be later than its window.
        return max(min(ready, s.frames(self._received)), self._done)

    def finish(self) -> torch.Tensor:
        """The remaining frames, and the stream begins anew. Without a chunk since the last time: ValueError."""
        if self._held is None:
            raise ValueError("finish must follow a push; no chunk has arrived")
        total = self._settings.frames(self._received) if self._received else 0
        out = self._frames(max(total, self._done))
        self._reset()
        return out

    def _frames(self, end: int) -> torch.Tensor:
        """Frames from the first that was not returned up to `end`."""
        held, s = self._held, self._settings
        assert held is not None
        count, first = end - self._done, self._done
        if count <= 0:
            shape = self._inside.out_shape(torch.Size((*held.shape[:-1], s.length)))
            frames = -1 if s.bands_first else -2
            empty = [0 if i == len(shape) + frames else n for i, n in enumerate(shape)]
            return held.new_empty(empty, dtype=self._dtype(held))
        start = first * s.hop_length + s.start
        stop = (end - 1) * s.hop_length + s.start + s.length
        call = Call(self._window, None, 0, None, self._dtype(held), self._backend)
        out = spectrogram(self._stretch(held, start, stop), self._inside, call)
        self._done = end
        return out

    def _stretch(self, held: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Samples [start, stop) of the padded clip."""
        if start >= self._first and stop <= self._received:
            return held[..., start - self._first : stop - self._first]
        position = torch.arange(start, stop, device=held.device)
        source = source_of(position, self._received, self._settings.pad_mode)
        samples = held[..., (source - self._first).clamp_min(0)]
        return samples.masked_fill(source < 0, 0) if self._settings.pad_mode == "constant" else samples

    def _forget(self, start: int) -> None:
        """Drops samples before `start`, but keeps what padding at the end of the clip may repeat."""
        held, s = self._held, self._settings
        assert held is not None
        # The last frame reaches less than a window beyond the end, and is reflected about it.
        keep_from = max(self._first, min(start, self._received - s.length - 1))
        if keep_from - self._first > held.shape[-1] // 2:
            self._held = held[..., keep_from - self._first :].clone()
            self._first = keep_from

    def _dtype(self, held: torch.Tensor) -> torch.dtype:
        return self._out_dtype or (torch.float32 if held.dtype == torch.int16 else held.dtype)

    @staticmethod
    def _check_like_earlier(chunk: torch.Tensor, held: torch.Tensor) -> None:
        if chunk.dtype != held.dtype:
            raise TypeError(f"chunk must have the dtype of the earlier ones, {held.dtype}; got {chunk.dtype}")
        if chunk.device != held.device or chunk.shape[:-1] != held.shape[:-1]:
            raise ValueError(
                f"chunk must be [{', '.join(map(str, (*held.shape[:-1], 'samples')))}] on {held.device}, as the "
                f"earlier ones; got {list(chunk.shape)} on {chunk.device}"
            )
