"""Sound through torchcodec, a few seconds at a time, mixed and resampled as PyAV's is."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from reserve.data.decode.protocol import Soundtrack
from reserve.data.decode.pyav.container import Container, import_av
from reserve.data.decode.pyav.sound import JITTER, Pieces, Resampled
from reserve.data.decode.torchcodec.library import Refused, import_torchcodec, refusals
from reserve.data.decode.torchcodec.packets import FilePackets, PacketTable

# Their packets hold one frame each, so that packets tell which samples there are. Frames of Vorbis can be shorter than
# the rounding of Matroska's timestamps.
_CODECS = ("aac", "ac3", "alac", "eac3", "flac", "mp3", "opus")
_MAX_CHANNELS = 8
# Samples of all channels at a time, 1 MiB: larger stretches leave the processor's caches and cost a third more.
_STRETCH = 2**18
# Packets by which the decoded sound may end earlier or later than the file's packets say.
_END_PACKETS = 2


def read_soundtrack(container: Container, packets: FilePackets, *, track: int, sample_rate: int) -> Soundtrack:
    """See `Media.soundtrack`. Raises Refused for sound that torchcodec would put elsewhere or lacks."""
    stream = container.audio_stream(track)
    table = packets.tables[stream.index]
    context = stream.codec_context
    if table.problem is not None:
        raise Refused(table.problem)
    codec = context.codec.canonical_name
    if codec not in _CODECS and not codec.startswith("pcm_"):
        raise Refused(f"sound in {codec} is left to PyAV")
    if not 0 < context.channels <= _MAX_CHANNELS:
        raise Refused(f"sound of {context.channels} channels is left to PyAV")
    limit = container.limits.max_duration
    pieces = Pieces(0, round(limit * sample_rate))
    runs = Resampled(sample_rate, container.origin)
    for frame in _frames(container, stream, table):
        pieces.extend(runs.push(frame))
    pieces.extend(runs.flush())
    if not pieces.end:
        raise Refused("torchcodec decodes none of its sound")
    waveform, mapping = pieces.mapped()
    end = max(packets.picture_end, len(waveform) / sample_rate)
    return Soundtrack(waveform, sample_rate, min(end, limit), mapping)


def _frames(container: Container, stream: Any, table: PacketTable) -> Iterator[Any]:
    """The sound in PyAV's frames of some seconds, each with its time."""
    av = import_av()
    layout, rate = stream.codec_context.layout.name, stream.codec_context.sample_rate
    stretches = list(_stretches(table, rate, max(1, _STRETCH // stream.codec_context.channels)))
    decoder = _Decoder(container, stream.index)
    if decoder.rate != rate:
        raise Refused(f"its sound is of {decoder.rate} Hz or of {rate} Hz")
    for number, (first, last) in enumerate(stretches):
        container.deadline.check()
        is_end = number == len(stretches) - 1
        samples, start = decoder.read(
            _middle(table, first) if number else 0.0, None if is_end and not table.is_cut else _middle(table, last)
        )
        _check(table, first, last, start, samples.shape[1] / rate, is_start=not number, is_end=is_end)
        # Packed samples, since PyAV takes the layout of planar ones from their count alone.
        packed = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = round(start * rate)
        yield frame


class _Decoder:
    """torchcodec on one audio stream."""

    def __init__(self, container: Container, index: int) -> None:
        decoders = import_torchcodec()
        with refusals("torchcodec cannot open its sound"):
            self._audio = decoders.AudioDecoder(f"file:{container.path}", stream_index=index)
        self.rate = self._audio.metadata.sample_rate

    def read(self, start: float, stop: float | None) -> tuple[np.ndarray, float]:
        """All frames that play in [start, stop), whole: float32 [channels, samples] and the first one's time in
        seconds. torchcodec's public call cuts them at `stop` and then begins again from the start of the file for what
        comes after it."""
        from torchcodec import _core

        with refusals("torchcodec cannot decode its sound"):
            samples, first = _core.get_frames_by_pts_in_range_audio(
                self._audio._decoder, start_seconds=start, stop_seconds=stop
            )
        return samples.numpy(), first.item()


def _stretches(table: PacketTable, rate: int, samples: int) -> Iterator[tuple[int, int]]:
    """The first and last packets of stretches of about `samples` samples, without a gap in them.

    Gaps are what PyAV takes for one: more than JITTER seconds between a timestamp and the count of samples.
    """
    tick = table.tick
    first, due, end = 0, 0.0, 0.0
    for place, (ticks, duration) in enumerate(zip(table.starts, table.durations, strict=True)):
        start = ticks * tick
        if duration <= 0:
            raise Refused("some packets of its sound have no duration")
        if place and ticks <= table.starts[place - 1]:
            raise Refused("the timestamps of its sound go back")
        if place and start < due - JITTER:
            raise Refused("some of its sound lies over earlier sound")
        if place and (start > due + JITTER or (start - end) * rate >= samples):
            yield first, place - 1
            first, end = place, start
            due = start if start > due + JITTER else due
        elif not place:
            due = end = start
        due += duration * tick
    if table.starts:
        yield first, len(table.starts) - 1


def _middle(table: PacketTable, place: int) -> float:
    """The middle of a packet, in seconds: a boundary there takes it whole, whatever the rounding of timestamps."""
    return (table.starts[place] + table.durations[place] / 2) * table.tick


def _check(
    table: PacketTable, first: int, last: int, start: float, seconds: float, *, is_start: bool, is_end: bool
) -> None:
    """Raises Refused unless the decoded sound from `start` on is that of packets `first` to `last`."""
    if not is_start and abs(start - table.starts[first] * table.tick) > 2 * table.tick:
        raise Refused("torchcodec decodes its sound at other times than its packets have")
    duration = table.durations[last] * table.tick
    by_times = table.starts[last] * table.tick + duration - start
    # Timestamps of live recordings jitter, and durations of some containers are rounded.
    by_durations = sum(table.durations[first : last + 1]) * table.tick
    off = min(abs(seconds - by_times), abs(seconds - by_durations))
    if off > (_END_PACKETS * duration + JITTER if is_end else max(2 * table.tick, duration / 2)):
        raise Refused("torchcodec decodes another length of its sound than its packets have")
