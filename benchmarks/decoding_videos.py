"""Synthetic videos for the benchmarks of decoding: a textured scene that pans behind moving shapes, with tones.

Their bit rates and distances of key frames are those of web videos: 0.6 to 0.8 Mb/s with sound, a key frame every 250
frames (x264's default), in VP9 every 128. One more is a video of `reserve demo-data`: 320x192, 10 frames a second.
"""

from __future__ import annotations

import atexit
import functools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reserve.synthetic.videos import make_videos

SECONDS, RATE = 90, 24
_MARGIN = 200
"""Pixels that the scene pans at most, each way."""


@dataclass(frozen=True)
class Made:
    """How a video is encoded."""

    encoder: str
    suffix: str
    width: int
    height: int
    options: Mapping[str, str] = field(default_factory=dict)
    audio: str = "aac"
    sample_rate: int = 44100
    pixel_format: str = "yuv420p"


_X264 = {"preset": "veryfast", "g": "250"}
VIDEOS = {
    "h264 360p": Made("libx264", "mp4", 640, 360, _X264),
    "h264 720p": Made("libx264", "mp4", 1280, 720, _X264),
    "vp9 360p": Made(
        "libvpx-vp9", "webm", 640, 360, {"deadline": "realtime", "cpu-used": "8", "g": "128"}, "libopus", 48000
    ),
    "av1 360p": Made("libsvtav1", "mp4", 640, 360, {"preset": "11", "g": "250", "svtav1-params": "lp=2"}),
}


DEMO = "demo"
NAMES = (*VIDEOS, DEMO)


@functools.cache
def made_video(name: str, seconds: int = SECONDS) -> Path:
    """The video of that name, in a temporary folder that is removed at exit. The demo's has a length of its own."""
    folder = tempfile.TemporaryDirectory(prefix="reserve-decoding-")
    atexit.register(folder.cleanup)
    if name == DEMO:
        (path,), _ = make_videos(folder.name, videos=1, held_out=0, workers=1)
        return path
    made = VIDEOS[name]
    return write_video(Path(folder.name) / f"video.{made.suffix}", made, seconds)


def write_video(path: Path, made: Made, seconds: int) -> Path:
    import av

    container: Any
    with av.open(str(path), "w") as container:
        video = container.add_stream(made.encoder, rate=RATE, options=dict(made.options))
        video.width, video.height, video.pix_fmt = made.width, made.height, made.pixel_format
        audio = container.add_stream(made.audio, rate=made.sample_rate, layout="stereo")
        tones = _tones(seconds, made.sample_rate)
        for number, picture in enumerate(_pictures(made.width, made.height, seconds)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if number % RATE == 0:
                start = number // RATE * made.sample_rate
                sound = np.stack([tones[start : start + made.sample_rate]] * 2)
                frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = made.sample_rate, start
                container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode())
    return path


def _pictures(width: int, height: int, seconds: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    size = (height + 2 * _MARGIN, width + 2 * _MARGIN)
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = 128 + 50 * np.sin(columns / 23) * np.cos(rows / 17) + 20 * np.sin(columns / 5 + rows / 7)
    scene = np.clip(waves[..., None] + rng.normal(0, 6, (*size, 3)), 0, 255).astype(np.uint8)
    for number in range(seconds * RATE):
        x, y = (round(_MARGIN * (1 + wave)) for wave in (np.sin(0.02 * number), np.cos(0.013 * number)))
        picture = scene[y : y + height, x : x + width].copy()
        for shape in range(6):
            x = int(width * (0.5 + 0.4 * np.sin(0.02 * number * (shape + 1))))
            y = int(height * (0.5 + 0.4 * np.cos(0.03 * number + shape)))
            colour = (40 * shape, 255 - 40 * shape, 20 * (number % 12))
            picture[max(y - 25, 0) : y + 25, max(x - 25, 0) : x + 25] = colour
        yield picture


def _tones(seconds: int, rate: int) -> np.ndarray:
    """float32 [samples]: a rising tone that swells three times in two seconds, with some noise."""
    time: Any = np.arange(seconds * rate) / rate
    swelling = 0.6 + 0.4 * np.sin(2 * np.pi * 1.5 * time)
    noise = np.random.default_rng(0).normal(0, 0.03, len(time))
    return (0.3 * np.sin(2 * np.pi * (300 + 20 * time) * time) * swelling + noise).astype(np.float32)
