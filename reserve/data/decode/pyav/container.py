"""An open container in PyAV: what may be opened, its streams, and reading past damage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reserve.data.decode.protocol import AudioTrack, Deadline, MediaInfo, MediaLimits, TextTrack, VideoTrack
from reserve.data.decode.pyav.clock import ContinuousClock
from reserve.errors import BadInput, EnvironmentFailure
from reserve.fs import check_regular_file, is_environment_failure

if TYPE_CHECKING:
    import av

# Demuxers that open other files or devices named in their input, or render text: none of them is a video file.
_REFUSED_FORMATS = (
    "adf alias_pix alsa bin concat concatf dash data fbdev ffmetadata hls idf image2 imf kmsgrab lavfi rtp rtsp "
    "sap sdp smoothstreaming tty txd vapoursynth video4linux2 v4l2 webm_dash_manifest x11grab xbin"
)
_MAX_READ_ERRORS = 1000
_PICTURES_OF_TEXT = ("dvbsub", "dvdsub", "pgssub", "xsub")
# Their clock has 33 bits without a sign. FFmpeg gives negative times before the point where it overflows.
_UNSIGNED_CLOCKS = ("mpegts", "mpeg")


def import_av() -> Any:
    """The module `av`, or an ImportError that names the extra to install."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise ImportError("decoding video needs PyAV: pip install 'merlot-reserve[video]'") from error
    av.logging.set_level(None)
    return av


@cache
def _accepted_formats() -> str:
    names = {name for entry in import_av().formats_available for name in entry.split(",")}
    return ",".join(sorted(names.difference(_REFUSED_FORMATS.split())))


@cache
def decoding_failures() -> tuple[type[Exception], ...]:
    """What PyAV raises on bad files; it raises LookupError for streams that appear midway."""
    own = import_av().FFmpegError
    return (own, OSError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError, EOFError)


@contextmanager
def decoding_errors(doing: str) -> Iterator[None]:
    """Turns whatever PyAV raises on a bad file into BadInput that says what was being done."""
    try:
        yield
    except decoding_failures() as error:
        if is_environment_failure(error):
            raise EnvironmentFailure(f"{doing}: {error}") from error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadInput(f"{doing}: {reason}") from error


def _forget_channel_order(context: av.AudioCodecContext) -> None:
    """Turns an unusual layout of channels into a mere count of them.

    FFmpeg keeps an order of channels that is not its own, as QuickTime has several, in memory that PyAV frees with each
    object that shares it. Here it is freed once and never used again.
    """
    layout = context.layout
    count = f"{layout.nb_channels} channels"
    if layout.name.startswith(f"{count} ("):
        context.layout = count


def _video_track(context: av.VideoCodecContext) -> VideoTrack:
    return VideoTrack(
        True,
        width=context.width,
        height=context.height,
        codec=context.codec.canonical_name,
        profile=context.profile or "",
        pixel_format=context.pix_fmt or "",
    )


class Container:
    """An open file. Every method raises BadInput if the file is at fault."""

    def __init__(self, path: str | Path, limits: MediaLimits, deadline: Deadline) -> None:
        self.path, self.limits, self.deadline = Path(path), limits, deadline
        self._av = import_av()
        check_regular_file(self.path)
        self.raw = self._open()
        """PyAV's container."""
        self.origin = self._find_origin()
        """The timestamp, in seconds, of time 0."""
        self.info = self._read_info()
        self.has_clock_breaks = self._find_clock_breaks()
        """Whether timestamps are not those in the file, but moved to a continuous axis. Then a seek by time is void."""

    def _open(self) -> av.container.InputContainer:
        self.deadline.check()
        with decoding_errors("not a media file that can be decoded"):
            # With a prefix, no file name is taken for a URL; the whitelists keep a playlist from reaching other files.
            raw = self._av.open(
                f"file:{self.path}",
                container_options={"format_whitelist": _accepted_formats(), "protocol_whitelist": "file"},
                # For codecs that FFmpeg runs while it opens the file.
                options={"max_pixels": str(self.limits.max_pixels)},
                metadata_errors="replace",
                timeout=(self.limits.max_decode_seconds, self.limits.max_decode_seconds),
            )
        for stream in raw.streams.audio:
            if stream.codec_context is not None:
                _forget_channel_order(stream.codec_context)
        self._is_at_start = True
        self._time_bases: dict[int, tuple[int, int] | None] = {}
        return raw

    def _read_info(self) -> MediaInfo:
        streams = self.raw.streams
        first = self.main_video()
        video = None
        if first is not None:
            context = first.codec_context
            video = VideoTrack(False) if context is None else _video_track(context)
        audio, text = map(self._audio_track, streams.audio), map(self._text_track, streams.subtitles)
        return MediaInfo(video, tuple(audio), tuple(text))

    def _audio_track(self, stream: Any) -> AudioTrack:
        kinds, disposition = self._av.stream.Disposition, stream.disposition
        return AudioTrack(
            stream.codec_context is not None,
            language=stream.language or "",
            title=stream.metadata.get("title", ""),
            is_default=bool(disposition & kinds.default),
            is_comment=bool(disposition & kinds.comment),
            is_description=bool(disposition & (kinds.visual_impaired | kinds.descriptions)),
        )

    def _text_track(self, stream: Any) -> TextTrack:
        kinds, disposition = self._av.stream.Disposition, stream.disposition
        context = stream.codec_context
        return TextTrack(
            context is not None,
            language=stream.language or "",
            title=stream.metadata.get("title", ""),
            is_default=bool(disposition & kinds.default),
            is_forced=bool(disposition & kinds.forced),
            is_comment=bool(disposition & kinds.comment),
            is_hearing_impaired=bool(disposition & kinds.hearing_impaired),
            is_pictures=context is not None and context.name in _PICTURES_OF_TEXT,
        )

    def main_video(self) -> av.VideoStream | None:
        """The first video stream that is not a cover picture, one that players choose by default before others."""
        kinds = self._av.stream.Disposition
        streams = [
            s for s in self.raw.streams.video if not s.disposition & (kinds.attached_pic | kinds.timed_thumbnails)
        ]
        return min(streams, key=lambda stream: not stream.disposition & kinds.default, default=None)

    def close(self) -> None:
        self.raw.close()

    def rewind(self) -> None:
        """Goes back to the start, also in formats that cannot seek. Streams taken before are void."""
        if not self._is_at_start:
            self.raw.close()
            self.raw = self._open()

    def seek(self, timestamp: int, stream: Any = None) -> bool:
        """Moves to the key frame before `timestamp`, in ticks of `stream` or in microseconds without one. Returns False
        if the format cannot seek there."""
        self._is_at_start = False
        try:
            self.raw.seek(timestamp, stream=stream, backward=True)
        except decoding_failures():
            return False
        return True

    def _find_origin(self) -> float:
        if self.raw.start_time is None:
            return 0.0
        start = self.raw.start_time / 1_000_000
        return start if self.raw.format.name in _UNSIGNED_CLOCKS else max(start, 0.0)

    def video_stream(self) -> av.VideoStream:
        """The video stream that `info` describes, checked against the limits."""
        self.info.check_video(self.limits)
        stream = self.main_video()
        if stream is None or stream.codec_context is None:
            raise BadInput("no video stream")
        return stream

    def audio_stream(self, track: int) -> av.AudioStream:
        """Audio track `track`, counted from 0 in the container's order."""
        self.info.check_audio(track)
        return self.raw.streams.audio[track]

    def text_stream(self, track: int) -> Any:
        """Text track `track`, counted from 0 in the container's order."""
        self.info.check_text(track)
        return self.raw.streams.subtitles[track]

    def demux(self, *streams: Any) -> Iterator[Any]:
        """Packets of `streams` from the current position on, on a continuous time axis.

        Skips damaged stretches; a damaged end is the end.
        """
        if not self.has_clock_breaks:
            return self._read(streams)
        wanted = {stream.index for stream in streams}
        return (packet for packet, _ in self._read_continuously(streams) if packet.stream_index in wanted)

    def _find_clock_breaks(self) -> bool:
        """Reads the whole file if its format can have breaks in its clock; rewinds it."""
        if not self.raw.format.flags & self._av.format.Flags.ts_discont.value:
            return False
        found = False
        for packet, clock in self._read_continuously(()):
            start = self.start_of(packet)
            found = clock.has_breaks
            if found or (start is not None and start > self.limits.max_duration):
                break
        self.rewind()
        return found

    def _read_continuously(self, streams: tuple[Any, ...]) -> Iterator[tuple[Any, ContinuousClock]]:
        """Packets of all sound and pictures and of `streams`, moved to a continuous axis, with its clock so far."""
        clock = ContinuousClock()
        steady = [*self.raw.streams.audio, *([video] if (video := self.main_video()) is not None else [])]
        indices = {stream.index for stream in steady}
        for packet in self._read((*steady, *(stream for stream in streams if stream.index not in indices))):
            time = packet.dts if packet.dts is not None else packet.pts
            if time is not None and packet.time_base:
                tick = float(packet.time_base)
                delay = 0 if packet.pts is None else packet.pts - time
                shift = clock.shift(
                    packet.stream_index,
                    time * tick,
                    (packet.duration or 0) * tick,
                    delay=delay * tick,
                    is_sparse=packet.stream_index not in indices,
                )
                ticks = round(shift / tick)
                if ticks and packet.pts is not None:
                    packet.pts += ticks
                if ticks and packet.dts is not None:
                    packet.dts += ticks
            yield packet, clock

    def _read(self, streams: tuple[Any, ...]) -> Iterator[Any]:
        self._is_at_start = False
        packets = self.raw.demux(*streams)
        errors = 0
        while True:
            self.deadline.check()
            try:
                packet = next(packets)
            except (StopIteration, self._av.EOFError):
                return
            except decoding_failures():
                errors += 1
                if errors > _MAX_READ_ERRORS:
                    return
                packets = self.raw.demux(*streams)
                continue
            yield packet

    def decode(self, packet: Any) -> list[Any]:
        """The frames of one packet; none if it is damaged."""
        self.deadline.check()
        try:
            return packet.decode()
        except decoding_failures():
            return []

    def start_of(self, packet: Any) -> float | None:
        """Presentation time of a packet in seconds, or None if it has none."""
        timestamp = packet.pts if packet.pts is not None else packet.dts
        time_base = self._time_base(packet)
        if timestamp is None or time_base is None:
            return None
        return timestamp * time_base[0] / time_base[1] - self.origin

    def end_of(self, packet: Any) -> float:
        """Where a packet ends in seconds, 0 if it has no time."""
        start, time_base = self.start_of(packet), self._time_base(packet)
        if start is None or time_base is None:
            return 0.0
        return start + (packet.duration or 0) * time_base[0] / time_base[1]

    def _time_base(self, packet: Any) -> tuple[int, int] | None:
        """Numerator and denominator of the packet's tick in seconds. PyAV makes a fraction each time it is asked."""
        try:
            return self._time_bases[packet.stream_index]
        except KeyError:
            tick = packet.time_base
            found = None if tick is None else (tick.numerator, tick.denominator)
            return self._time_bases.setdefault(packet.stream_index, found)

    def duration(self) -> float:
        """See `Media.duration`."""
        self.rewind()
        video = self.main_video()
        streams = [*self.raw.streams.audio, *([] if video is None else [video])]
        end = max(map(self.end_of, self.demux(*streams)), default=0.0) if streams else 0.0
        return min(end, self.limits.max_duration)
