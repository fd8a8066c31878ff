"""Decoding a video as pretraining does: the middle frame of every 5 s, and the audio track at 22050 Hz mono.

The video is synthetic: 40 s of moving shapes and tones, 640x360 at 25 frames/s, with a key frame every 10 s, like web
videos. Decoders differ in colour conversion, resampling and start, so their results are compared coarsely.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.interleaved import OURS, Contender, Measured, Missing, measure, publish, replayed
from benchmarks.machine import torch_threads
from reserve.data.decode.pyav import PyAVDecoder

OP = "decoding"
SECONDS, RATE, WIDTH, HEIGHT = 40, 25, 640, 360
CODECS = {"h264": ("libx264", "mp4"), "vp9": ("libvpx-vp9", "webm")}
MIDDLES = [2.5 + 5 * i for i in range(SECONDS // 5)]


def _pictures() -> Iterator[np.ndarray]:
    """Shapes that move over a textured background."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    texture = (128 + 60 * np.sin(columns / 23) * np.cos(rows / 17))[..., None] + rng.normal(0, 6, (HEIGHT, WIDTH, 3))
    for i in range(SECONDS * RATE):
        picture = np.clip(texture, 0, 255).astype(np.uint8)
        for shape in range(6):
            x = int(WIDTH * (0.5 + 0.4 * np.sin(0.02 * i * (shape + 1))))
            y = int(HEIGHT * (0.5 + 0.4 * np.cos(0.03 * i + shape)))
            picture[max(y - 25, 0) : y + 25, max(x - 25, 0) : x + 25] = (40 * shape, 255 - 40 * shape, 20 * (i % 12))
        yield picture


@functools.cache
def made_video(codec: str) -> Path:
    """The video in `codec`, in a temporary folder that is removed at exit."""
    av = _module("av")
    encoder, suffix = CODECS[codec]
    folder = tempfile.TemporaryDirectory(prefix="reserve-decoding-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / f"video.{suffix}"
    with av.open(str(path), "w") as container:
        fast = {"preset": "veryfast"} if codec == "h264" else {"deadline": "realtime", "cpu-used": "8"}
        video = container.add_stream(encoder, rate=RATE, options=fast | {"g": str(10 * RATE)})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac" if suffix == "mp4" else "libopus", rate=48000, layout="stereo")
        for picture in _pictures():
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        time = np.arange(SECONDS * 48000) / 48000
        tones = 0.3 * np.sin(2 * np.pi * (300 + 40 * time) * time) + 0.1 * np.sin(2 * np.pi * 2000 * time)
        for start in range(0, len(tones), 48000):
            sound = np.stack([tones[start : start + 48000]] * 2).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 48000, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return path


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise Missing(f"{name} cannot be imported: {str(error).splitlines()[0]}") from error


Decode = Callable[[Path], np.ndarray]


def our_frames(path: Path) -> np.ndarray:
    with PyAVDecoder().open(path) as media:
        return np.stack(list(media.frames(MIDDLES)))


def every_frame(path: Path) -> np.ndarray:
    """PyAV decodes every frame and keeps the requested ones."""
    wanted, kept = iter([*MIDDLES, float("inf")]), []
    nxt = next(wanted)
    with _module("av").open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        before: Any = None
        for frame in container.decode(video=0):
            while frame.time > nxt + 1e-6:
                kept.append(before.to_ndarray(format="rgb24"))
                nxt = next(wanted)
            before = frame
    return np.stack(kept)


def torchcodec_frames(path: Path) -> np.ndarray:
    decoder = _module("torchcodec.decoders").VideoDecoder(str(path), dimension_order="NHWC", seek_mode="approximate")
    return decoder.get_frames_played_at(MIDDLES).data.numpy()


def opencv_frames(path: Path) -> np.ndarray:
    cv2 = _module("cv2")
    capture, frames = cv2.VideoCapture(str(path)), []
    for middle in MIDDLES:
        capture.set(cv2.CAP_PROP_POS_MSEC, middle * 1000)
        frames.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    return np.stack(frames)


def our_sound(path: Path) -> np.ndarray:
    with PyAVDecoder().open(path) as media:
        return media.soundtrack().waveform


def librosa_sound(path: Path) -> np.ndarray:
    """PyAV's samples, mixed to mono, resampled by librosa."""
    with _module("av").open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray().mean(0) for frame in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    return _module("librosa").resample(sound, orig_sr=rate, target_sr=22050)


def torchcodec_sound(path: Path) -> np.ndarray:
    decoder = _module("torchcodec.decoders").AudioDecoder(str(path), sample_rate=22050, num_channels=1)
    return decoder.get_all_samples().data[0].numpy()


FRAMES: dict[str, Decode] = {
    OURS: our_frames,
    "PyAV, every frame": every_frame,
    "torchcodec": torchcodec_frames,
    "OpenCV": opencv_frames,
}
SOUND: dict[str, Decode] = {OURS: our_sound, "PyAV and librosa": librosa_sound, "torchcodec": torchcodec_sound}


def picture_difference(out: np.ndarray, ours: np.ndarray) -> float:
    """Mean absolute difference, on the scale of 0 to 255."""
    return float(np.abs(out.astype(np.float64) - ours).mean())


def loudness_difference(out: np.ndarray, ours: np.ndarray) -> float:
    """Largest difference of the root mean squares of tenths of a second, each relative to its mean.

    Decoders differ by some ms in their start, and by a factor in how they mix to mono. The first and the last second do
    not count.
    """
    tenth = 2205
    length = min(len(out), len(ours)) // tenth * tenth
    loudness = [np.sqrt(np.square(sound[:length].reshape(-1, tenth)).mean(1))[10:-10] for sound in (out, ours)]
    return float(np.abs(loudness[0] / loudness[0].mean() - loudness[1] / loudness[1].mean()).max())


JOBS = {"frames": (FRAMES, picture_difference, 8.0), "sound": (SOUND, loudness_difference, 0.1)}
"""Implementations, how they are compared, and the tolerance."""


@functools.cache
def on_cpu(job: str, codec: str) -> Measured:
    """One thread in NumPy and PyTorch; decoders choose their own number of threads."""
    implementations, difference, tolerance = JOBS[job]
    path = made_video(codec)

    def build(decode: Decode) -> Contender:
        return Contender(lambda: decode(path), lambda: decode(path))

    with torch_threads(1):
        builders = {name: functools.partial(build, decode) for name, decode in implementations.items()}
        measured = measure(builders, rounds=9, difference=difference, tolerance=tolerance, warm_up=1)
    measured.facts = {"seconds_of_video": SECONDS, "size": [HEIGHT, WIDTH], "torch_threads": torch.get_num_threads()}
    return measured


@replayed
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("job", "implementation"), [(job, name) for job in JOBS for name in JOBS[job][0]])
def test_cpu(benchmark, job, implementation, codec):
    label = f"{job} of {SECONDS} s of {codec}"
    publish(benchmark, on_cpu(job, codec), implementation, op=OP, device="CPU", label=label)
