"""Writes small media files whose pictures and sounds encode their time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from reserve.data.decode.protocol import Deadline
from reserve.errors import BadInput

try:
    import av
except ImportError:  # a GPU machine without PyAV collects tests that would need it
    av = None

SIZE = (48, 64)
"""Height and width of the pictures."""
_BITS = 8
_SUBTITLE_HEADER = b"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Bold, Italic, Alignment
Style: Default,Arial,16,&Hffffff,0,0,2
[Events]
"""


def number_picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture of `number` (0 to 255) as eight grey or white columns. Black ones could be trimmed as bars."""
    columns = [250 if number >> bit & 1 else 70 for bit in range(_BITS)]
    row = np.repeat(np.array(columns, dtype=np.uint8), size[1] // _BITS)
    return np.broadcast_to(row[None, :, None], (size[0], size[1], 3)).copy()


def read_number(picture: np.ndarray) -> int:
    """The number in a picture of any size, also after lossy coding."""
    width = picture.shape[1] / _BITS
    levels = [picture[:, int((bit + 0.5) * width)].mean() for bit in range(_BITS)]
    return sum(1 << bit for bit, level in enumerate(levels) if level > 160)


def click_track(seconds: float, clicks: Sequence[float], rate: int = 44100) -> np.ndarray:
    """Silence with a 10 ms tone burst centred at each of `clicks`: float32 [samples]."""
    sound = np.zeros(round(seconds * rate), dtype=np.float32)
    burst = np.sin(2 * np.pi * 2000 * np.arange(round(0.01 * rate)) / rate).astype(np.float32) * 0.8
    for click in clicks:
        first = round((click - 0.005) * rate)
        sound[first : first + len(burst)] = burst
    return sound


def find_clicks(waveform: np.ndarray, rate: int) -> list[float]:
    """Centres, in seconds, of the stretches where a click track is loud."""
    loud = np.flatnonzero(np.abs(waveform) > 0.3 * np.abs(waveform).max())
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > 0.05 * rate) + 1)
    return [float(group[0] + group[-1]) / 2 / rate for group in groups]


class ExpiresAfter(Deadline):
    """A deadline that expires after `checks` checks."""

    def __init__(self, checks: int) -> None:
        super().__init__(1e9)
        self._left = checks

    def check(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise BadInput("expired")


@dataclass(frozen=True)
class Sound:
    """An audio track: float32 [samples] at `rate`, beginning at `start` seconds."""

    samples: np.ndarray
    rate: int = 44100
    start: float = 0.0
    codec: str = "aac"
    layout: str = "mono"


def write_media(
    path: Path,
    *,
    frame_times: Sequence[float] = (),
    picture: Callable[[int], np.ndarray] = number_picture,
    video_codec: str = "libx264",
    gop: int = 12,
    tick: Fraction = Fraction(1, 1000),
    pixel_aspect: Fraction = Fraction(1),
    sounds: Sequence[Sound] = (),
    cues: Sequence[tuple[float, float, str]] = (),
    options: dict[str, str] | None = None,
) -> Path:
    """Writes a file with frame i showing `picture(i)` from `frame_times[i]` seconds on, with audio and text tracks.

    `tick` is the time base of the video in seconds, `pixel_aspect` the width : height of its pixels.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        packets = []
        if frame_times:
            packets += _video_packets(container, frame_times, picture, video_codec, gop, tick, pixel_aspect)
        tracks = [container.add_stream(sound.codec, rate=sound.rate, layout=sound.layout) for sound in sounds]
        for sound, stream in zip(sounds, tracks, strict=True):
            packets += audio_packets(sound, stream)
        if cues:
            packets += _text_packets(container, cues)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def write_wave(path: Path, samples: np.ndarray, rate: int, channel_mask: int) -> Path:
    """Writes [samples, channels] in [-1, 1] as 16-bit PCM. A bit of `channel_mask` is a loudspeaker; 0 names none."""
    channels = samples.shape[1]
    data = (samples * 32767).astype("<i2").tobytes()
    pcm = bytes.fromhex("0100000000001000800000aa00389b71")
    header = struct.pack("<HHIIHH", 0xFFFE, channels, rate, rate * 2 * channels, 2 * channels, 16)
    header += struct.pack("<HHI", 22, 16, channel_mask) + pcm
    chunks = b"WAVE" + b"fmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    return path


def _video_packets(container, times, picture, codec, gop, tick, pixel_aspect):
    first = picture(0)
    stream = container.add_stream(codec, rate=1 / tick if tick > Fraction(1, 100) else 25)
    stream.width, stream.height, stream.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
    stream.time_base = stream.codec_context.time_base = tick
    stream.codec_context.sample_aspect_ratio = pixel_aspect
    stream.codec_context.gop_size = gop
    if codec == "libx264":
        stream.options = {"preset": "ultrafast", "crf": "18", "bf": "2"}
    elif codec == "libvpx-vp9":
        stream.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    packets = []
    for index, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = round(time / tick), tick
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def audio_packets(sound, stream):
    """A sound encoded as packets of `stream`."""
    resampler = av.AudioResampler(format=stream.codec_context.format, layout=sound.layout, rate=sound.rate)
    size = stream.codec_context.frame_size or 960
    packets = []
    for first in range(0, len(sound.samples), size):
        block = sound.samples[first : first + size]
        frame = av.AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
        frame.rate, frame.time_base = sound.rate, Fraction(1, sound.rate)
        frame.pts = round(sound.start * sound.rate) + first
        for part in resampler.resample(frame):
            packets += stream.encode(part)
    return packets + stream.encode(None)


def _text_packets(container, cues):
    stream = container.add_stream("mov_text")
    stream.codec_context.subtitle_header = _SUBTITLE_HEADER
    stream.time_base = Fraction(1, 1000)
    packets = []
    for start, end, text in cues:
        encoded = text.encode()
        packet = av.Packet(len(encoded).to_bytes(2, "big") + encoded)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = round(start * 1000)
        packet.duration = round((end - start) * 1000)
        packets.append(packet)
    return packets
