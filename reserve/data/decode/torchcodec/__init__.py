"""Decodes pictures with torchcodec, on FFmpeg's libraries too but without an object of Python for each frame.

PyAV opens the file, reads its text, sound and timestamps of packets, and decodes the pictures that torchcodec
would decode otherwise than `Media` says; `Media.fallbacks` has the reason. Sound is PyAV's because it is faster with it
than with torchcodec, whose samples need the file's timestamps checked and the same resampler. Figures:
docs/decoding.md, "torchcodec". torchcodec imports torch, 2 to 3 seconds, when a file is decoded or `unavailable` asked,
not with this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from reserve.data.decode.protocol import (
    Deadline,
    Fallback,
    FileDecoder,
    Media,
    MediaInfo,
    MediaLimits,
    Soundtrack,
    check_times,
)
from reserve.data.decode.pyav import PyAVDecoder, PyAVMedia
from reserve.data.decode.pyav.container import Container, import_av
from reserve.data.decode.torchcodec.frames import FrameReader
from reserve.data.decode.torchcodec.library import Refused, import_torchcodec
from reserve.data.decode.torchcodec.packets import PacketTable, read_packets, unsuited_format

__all__ = ["TorchCodecDecoder"]


class TorchCodecDecoder(FileDecoder):
    """One file at a time: pictures through torchcodec, the rest through PyAV."""

    name = "torchcodec"
    reads_ahead = True

    def unavailable(self) -> str | None:
        try:
            import_av()  # opens the files
            import_torchcodec()
        except ImportError as error:
            return str(error)
        return None

    def __init__(self, *, is_asked_for: bool = False) -> None:
        self._is_asked_for = is_asked_for

    def by_name(self) -> TorchCodecDecoder:
        return TorchCodecDecoder(is_asked_for=True)

    def unsuited(self, info: MediaInfo) -> str | None:
        if self._is_asked_for or info.video is None or info.video.codec != "h264":
            return None
        # It skips pictures that nothing needs.
        return "PyAV decodes H.264 faster"

    def open(self, path: str | Path, limits: MediaLimits | None = None, deadline: Deadline | None = None) -> Media:
        limits = limits or MediaLimits()
        return _TorchCodecMedia(Container(path, limits, deadline or Deadline(limits.max_decode_seconds)))


class _TorchCodecMedia(PyAVMedia):
    def __init__(self, container: Container) -> None:
        super().__init__(container)
        self._table: PacketTable | None = None
        self._reader: FrameReader | None = None
        self._refusal: str | None = None
        self._fallbacks: dict[str, Fallback] = {}

    @property
    def fallbacks(self) -> Mapping[str, Fallback]:
        return self._fallbacks

    def frames(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        check_times(times)
        self.info.check_video(self._container.limits)
        self._fallbacks.pop("pictures", None)
        done = 0
        try:
            for frame in self._pictures().read(times):
                yield frame
                done += 1
        except Refused as refusal:
            self._fallbacks["pictures"] = Fallback(PyAVDecoder.name, str(refusal))
            self._reader = None
        if done < len(times):
            yield from super().frames(times[done:])

    def soundtrack(self, *, track: int = 0, sample_rate: int = 22050) -> Soundtrack:
        self._fallbacks["sound"] = Fallback(PyAVDecoder.name, "PyAV decodes sound faster")
        return super().soundtrack(track=track, sample_rate=sample_rate)

    def close(self) -> None:
        self._reader = None
        super().close()

    def _pictures(self) -> FrameReader:
        """torchcodec on the file, opened once."""
        if self._refusal is not None:
            raise Refused(self._refusal)
        if self._reader is None:
            try:
                self._reader = self._opened()
            except Refused as refusal:
                self._refusal = str(refusal)
                raise
        return self._reader

    def _opened(self) -> FrameReader:
        if (reason := unsuited_format(self._container)) is not None:
            raise Refused(reason)
        if self._table is None:
            self._table = read_packets(self._container)
        return FrameReader(self._container, self._table)
