"""Decodes with FFmpeg's libraries through PyAV: every container and codec they know, on the CPU.

`av` is imported when a file is opened, not with this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from reserve.data.decode.protocol import Deadline, FileDecoder, Media, MediaInfo, MediaLimits, Soundtrack
from reserve.data.decode.pyav.container import Container, import_av
from reserve.data.decode.pyav.frames import read_frames
from reserve.data.decode.pyav.sound import read_sound, read_soundtrack
from reserve.data.decode.pyav.text import has_closed_captions, read_cues
from reserve.data.types import Cue

__all__ = ["PyAVDecoder", "PyAVMedia"]


class PyAVDecoder(FileDecoder):
    """One file at a time, through PyAV."""

    name = "pyav"

    def unavailable(self) -> str | None:
        try:
            import_av()
        except ImportError as error:
            return str(error)
        return None

    def open(self, path: str | Path, limits: MediaLimits | None = None, deadline: Deadline | None = None) -> Media:
        limits = limits or MediaLimits()
        return PyAVMedia(Container(path, limits, deadline or Deadline(limits.max_decode_seconds)))


class PyAVMedia(Media):
    """An open file, through PyAV."""

    def __init__(self, container: Container) -> None:
        self._container = container

    @property
    def info(self) -> MediaInfo:
        return self._container.info

    def duration(self) -> float:
        return self._container.duration()

    def frames(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        return read_frames(self._container, times)

    def soundtrack(self, *, track: int = 0, sample_rate: int = 22050) -> Soundtrack:
        return read_soundtrack(self._container, track=track, sample_rate=sample_rate)

    def sound(self, start: float, stop: float, *, track: int = 0, sample_rate: int = 22050) -> np.ndarray:
        return read_sound(self._container, start, stop, track=track, sample_rate=sample_rate)

    def cues(self, track: int) -> list[Cue]:
        return read_cues(self._container, track)

    def has_closed_captions(self) -> bool:
        return has_closed_captions(self._container)

    def close(self) -> None:
        self._container.close()
