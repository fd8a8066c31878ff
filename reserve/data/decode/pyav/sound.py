"""Sound through PyAV: mono float32 on the file's presentation axis, and where the file really ends."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from reserve.data.decode.protocol import Soundtrack, check_span
from reserve.data.decode.pyav.container import Container, decoding_failures, import_av
from reserve.data.decode.pyav.downmix import MonoResampler
from reserve.errors import BadInput

_MAX_SAMPLE_RATE = 768_000
_MAX_CHANNELS = 64
_JITTER = 0.05
"""Timestamps of a run of frames may disagree with their count of samples by this many seconds (containers round them,
some to 1 ms, and encoders drift); beyond it there is a real gap or overlap."""
# More than this many seconds of sound over earlier sound are another recording, not damage.
_MAX_OVERLAP = 5.0
# Decoding starts this many seconds before a span: decoders and resamplers need some sound to settle.
_PREROLL = 0.5
_IN_MEMORY = 2**24
"""Samples: 64 MiB, 12 minutes at 22050 Hz."""
_SAMPLE_BYTES = 4
_BLOCK_VALUES = 2**19
"""Samples of all channels that are joined at most: more are no faster, and a file may claim 64 channels of 768 kHz."""


def read_soundtrack(container: Container, *, track: int, sample_rate: int) -> Soundtrack:
    """See `Media.soundtrack`."""
    stream = _rewound(container, track)
    pictures = [] if (video := container.main_video()) is None else [video]
    limit = container.limits.max_duration
    pieces = Pieces(0, round(limit * sample_rate))
    picture_end = 0.0
    past_limit: set[int] = set()
    runs = Resampled(sample_rate, container.origin)
    for packet in container.demux(stream, *pictures):
        start = container.start_of(packet)
        if start is not None and start >= limit:
            past_limit.add(packet.stream_index)
            if len(past_limit) == 1 + len(pictures):
                break
            continue
        if packet.stream_index != stream.index:
            picture_end = max(picture_end, container.end_of(packet))
            continue
        for frame in container.decode(packet):
            pieces.extend(runs.push(frame))
    pieces.extend(runs.flush())
    if not pieces.end:
        raise BadInput("no sound can be decoded from its audio track")
    if pieces.overlap > _MAX_OVERLAP * sample_rate:
        raise BadInput(
            f"its timestamps start again: {pieces.overlap / sample_rate:.1f} s of its sound lie over earlier sound, as "
            "in recordings joined byte by byte"
        )
    waveform, mapping = pieces.mapped()
    return Soundtrack(waveform, sample_rate, min(max(picture_end, len(waveform) / sample_rate), limit), mapping)


def read_sound(container: Container, start: float, stop: float, *, track: int, sample_rate: int) -> np.ndarray:
    """See `Media.sound`."""
    check_span(start, stop)
    length = round((stop - start) * sample_rate)
    first = round(start * sample_rate)
    limit = container.limits.max_duration
    pieces = Pieces(first, min(first + length, round(limit * sample_rate)))
    runs = Resampled(sample_rate, container.origin)
    for packet in _packets_from(container, track, start - _PREROLL):
        begin = container.start_of(packet)
        if begin is not None and begin >= min(stop, limit) + _PREROLL:
            break
        for frame in container.decode(packet):
            pieces.extend(runs.push(frame))
    pieces.extend(runs.flush())
    waveform, _ = pieces.mapped()
    return np.pad(waveform, (0, length - len(waveform)))


def _rewound(container: Container, track: int) -> Any:
    """Audio track `track` of the rewound container."""
    container.rewind()
    stream = container.audio_stream(track)
    context = stream.codec_context
    # Both are 0 in a transport stream whose sound starts late: the frames will say.
    if not 0 <= context.sample_rate <= _MAX_SAMPLE_RATE or not 0 <= context.channels <= _MAX_CHANNELS:
        raise BadInput(f"its audio claims {context.sample_rate} Hz and {context.channels} channels")
    return stream


def _packets_from(container: Container, track: int, start: float) -> Iterator[Any]:
    """Packets of an audio track from `start` seconds or earlier on; from the first if the format cannot seek there."""
    stream = _rewound(container, track)
    if start <= 0 or container.has_clock_breaks:
        return container.demux(stream)
    if container.seek(math.floor((start + container.origin) * 1_000_000)):
        packets = container.demux(stream)
        packet = next(packets, None)
        landed = None if packet is None else container.start_of(packet)
        if landed is not None and landed <= start:
            return chain([packet], packets)
    return container.demux(_rewound(container, track))


@dataclass(slots=True)
class Pieces:
    """Stretches of samples between positions `first` and `stop`; later ones win where they overlap.

    `end` is the position after the last sample, `overlap` the number of samples that lie over earlier ones. Beyond
    _IN_MEMORY samples they go to a temporary file, so that memory does not grow with the length of a file.
    """

    first: int
    stop: int
    parts: list[tuple[int, np.ndarray]] = field(default_factory=list)
    end: int = 0
    overlap: int = 0
    file: BinaryIO | None = None
    waiting: int = 0

    def extend(self, pieces: Iterable[tuple[int, np.ndarray]]) -> None:
        """Adds (position, samples), cut to the range. Positions of `parts` count from `first`."""
        for start, samples in pieces:
            skip = max(self.first - start, 0)
            samples = samples[skip : max(self.stop - start, 0)]
            if len(samples):
                place = start + skip - self.first
                self.parts.append((place, samples))
                self.waiting += len(samples)
                self.overlap += max(min(self.end, place + len(samples)) - place, 0)
                self.end = max(self.end, place + len(samples))
                if self.waiting > _IN_MEMORY:
                    self._write()

    def mapped(self) -> tuple[np.ndarray, mmap.mmap | None]:
        """All samples, float32 [end] and 0 between the parts, and the memory map that they lie in if there is one."""
        if self.file is None:
            return self._joined(), None
        self._write()
        self.file.truncate(self.end * _SAMPLE_BYTES)
        mapping = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        self.file.close()
        return np.frombuffer(mapping, dtype=np.float32), mapping

    def _write(self) -> None:
        """Moves the samples in memory to the file, which is not stored where there are none."""
        if self.file is None:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115  # mapped() closes it
        for start, samples in self.parts:
            self.file.seek(start * _SAMPLE_BYTES)
            self.file.write(_finite(samples.astype(np.float32)).tobytes())
        self.file.flush()
        self.parts, self.waiting = [], 0

    def _joined(self) -> np.ndarray:
        """The samples in memory: float32 [end], 0 between the parts."""
        waveform = np.zeros(self.end, dtype=np.float32)
        for start, samples in self.parts:
            waveform[start : start + len(samples)] = samples
        return _finite(waveform)


def _finite(samples: np.ndarray) -> np.ndarray:
    """A damaged float track can hold NaN and infinity: 0 takes their place, in place."""
    if np.isfinite(samples.sum()):
        return samples
    return np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


class Resampled:
    """Resamples a stream of frames; starts afresh wherever the time or the format jumps.

    Codecs give frames of some 20 ms. They are joined to blocks of about a second, since each call of the resampler
    costs more than its samples.
    """

    def __init__(self, sample_rate: int, origin: float) -> None:
        self._sample_rate = sample_rate
        self._origin = origin
        self._joined: Any = None
        self._resampler: MonoResampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._expected = 0.0
        self._position = 0
        self._block = 0

    def push(self, frame: Any) -> Iterable[tuple[int, np.ndarray]]:
        """Stretches of samples that `frame` completes, each with its position."""
        rate = frame.sample_rate
        if not 0 < rate <= _MAX_SAMPLE_RATE:
            return ()
        time = self._expected if frame.time is None else frame.time - self._origin
        form = (frame.format.name, frame.layout.name, rate)
        finished: Iterable[tuple[int, np.ndarray]] = ()
        if self._joined is None or form != self._format or abs(time - self._expected) > _JITTER:
            finished = self.flush()
            self._start(form, len(frame.layout.channels), time)
        self._expected += frame.samples / rate
        # The position is counted here: timestamps that jitter would make the resampler stretch or fill.
        frame.pts = None
        try:
            self._joined.write(frame)
        except decoding_failures():
            # A damaged frame decoded to something impossible. The next one starts afresh.
            return [*finished, *self.flush()]
        if self._joined.samples >= self._block:
            return [*finished, *self._resample(self._joined.read())]
        return finished

    def flush(self) -> list[tuple[int, np.ndarray]]:
        """What waits here and what the resampler still holds."""
        if self._joined is None:
            return []
        waiting = self._joined.read()
        found = [] if waiting is None else self._resample(waiting)
        found += self._resample(None)
        self._joined = self._resampler = None
        return found

    def _start(self, form: tuple[str, str, int], channels: int, time: float) -> None:
        _, layout, rate = form
        self._joined = import_av().AudioFifo()
        self._block = min(rate, max(_BLOCK_VALUES // channels, 1))
        self._resampler = MonoResampler(layout, self._sample_rate)
        self._format = form
        self._expected = time
        self._position = round(time * self._sample_rate)

    def _resample(self, frame: Any) -> list[tuple[int, np.ndarray]]:
        if self._resampler is None:
            return []
        try:
            resampled = self._resampler.resample(frame)
        except decoding_failures():
            self._joined = self._resampler = None
            return []
        found = []
        for samples in resampled:
            found.append((self._position, samples))
            self._position += len(samples)
        return found
