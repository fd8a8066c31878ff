"""The sound of a media file: mono float32 on the file's presentation axis, and how far the file really goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reserve.data.decode.pyav import MediaFile, decode_packet, decoding_failures, demux, import_av
from reserve.errors import BadInput

_MAX_SAMPLE_RATE = 768_000
_MAX_CHANNELS = 64
# Timestamps of a run of frames may disagree with their count of samples by this many seconds (containers round
# them, some to 1 ms, and encoders drift); beyond it there is a real gap or overlap.
_JITTER = 0.05


@dataclass(frozen=True, slots=True)
class Soundtrack:
    """`waveform` float32 [samples] in about [-1, 1], sample i at i / `sample_rate` seconds, zero where there is no
    sound; `media_end` seconds, where the last packet of sound or picture ends, whatever the container claims."""

    waveform: np.ndarray
    sample_rate: int
    media_end: float


def read_soundtrack(media: MediaFile, *, track: int = 0, sample_rate: int = 22050) -> Soundtrack:
    """Decodes audio track `track` (0 the first) of a file from its start, mixed to mono, resampled to `sample_rate`.

    Sound before time 0 and after `media.limits.max_duration` is left out; gaps and late starts are silence; damaged
    packets are skipped. Raises BadInput where there is no such track or nothing of it can be decoded.
    """
    media.rewind()
    stream = media.audio_stream(track)
    context = stream.codec_context
    if not 0 < context.sample_rate <= _MAX_SAMPLE_RATE or not 0 < context.channels <= _MAX_CHANNELS:
        raise BadInput(f"its audio claims {context.sample_rate} Hz and {context.channels} channels")
    pictures = media.container.streams.video[:1]
    limit = media.limits.max_duration
    pieces = _Pieces(sample_rate, round(limit * sample_rate))
    picture_end = 0.0
    past_limit: set[int] = set()
    runs = _Resampled(sample_rate, media.origin)
    for packet in demux(media, stream, *pictures):
        start = packet_start(packet, media.origin)
        if start is not None and start >= limit:
            past_limit.add(packet.stream_index)
            if len(past_limit) == 1 + len(pictures):
                break
            continue
        if packet.stream_index != stream.index:
            picture_end = max(picture_end, _packet_end(packet, start))
            continue
        for frame in decode_packet(media, packet):
            pieces.extend(runs.push(frame))
    pieces.extend(runs.flush())
    if not pieces.parts:
        raise BadInput("no sound can be decoded from its audio track")
    waveform = pieces.joined()
    return Soundtrack(waveform, sample_rate, min(max(picture_end, len(waveform) / sample_rate), limit))


def packet_start(packet: Any, origin: float) -> float | None:
    """Presentation time of a packet in seconds; None where it has none."""
    timestamp = packet.pts if packet.pts is not None else packet.dts
    if timestamp is None or packet.time_base is None:
        return None
    return float(timestamp * packet.time_base) - origin


def _packet_end(packet: Any, start: float | None) -> float:
    if start is None:
        return 0.0
    return start + float((packet.duration or 0) * packet.time_base)


@dataclass(slots=True)
class _Pieces:
    """Stretches of samples with their positions; later ones win where they overlap."""

    sample_rate: int
    max_samples: int
    parts: list[tuple[int, np.ndarray]] = field(default_factory=list)

    def extend(self, pieces: Iterator[tuple[int, np.ndarray]]) -> None:
        for start, samples in pieces:
            skip = max(-start, 0)
            samples = samples[skip : max(self.max_samples - start, 0)]
            if len(samples):
                self.parts.append((start + skip, samples))

    def joined(self) -> np.ndarray:
        waveform = np.zeros(max(start + len(samples) for start, samples in self.parts), dtype=np.float32)
        for start, samples in self.parts:
            waveform[start : start + len(samples)] = samples
        # A damaged float track can hold anything; what is not a number cannot be sound.
        np.nan_to_num(waveform, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return waveform


class _Resampled:
    """Resamples a stream of frames, starting afresh wherever its time or its format jumps."""

    def __init__(self, sample_rate: int, origin: float) -> None:
        self._av = import_av()
        self._sample_rate = sample_rate
        self._origin = origin
        self._resampler: Any = None
        self._format: tuple[str, str, int] | None = None
        self._expected = 0.0
        self._position = 0

    def push(self, frame: Any) -> Iterator[tuple[int, np.ndarray]]:
        """Samples that `frame` completes, each stretch with its position."""
        if not 0 < frame.sample_rate <= _MAX_SAMPLE_RATE:
            return
        time = self._expected if frame.time is None else frame.time - self._origin
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or form != self._format or abs(time - self._expected) > _JITTER:
            yield from self.flush()
            self._resampler = self._av.AudioResampler(format="flt", layout="mono", rate=self._sample_rate)
            self._format = form
            self._expected = time
            self._position = round(time * self._sample_rate)
        self._expected += frame.samples / frame.sample_rate
        yield from self._resample(frame)

    def flush(self) -> Iterator[tuple[int, np.ndarray]]:
        """What the resampler still holds."""
        if self._resampler is not None:
            yield from self._resample(None)
            self._resampler = None

    def _resample(self, frame: Any) -> Iterator[tuple[int, np.ndarray]]:
        if frame is not None:
            # Its clock is ours to keep: timestamps that jitter would make the resampler stretch or fill.
            frame.pts = None
        try:
            resampled = self._resampler.resample(frame)
        except decoding_failures():
            # A damaged frame that decoded to something impossible; the next one starts afresh.
            self._resampler = None
            return
        for part in resampled:
            samples = part.to_ndarray().reshape(-1)
            yield self._position, samples
            self._position += len(samples)
