"""Decoding on a GPU machine: what its video decoders take, and how fast frames and pictures become inputs.

    python -m benchmarks.decoding_lease --out FOLDER [--seconds TOTAL] [--quick]

Writes decoding_lease.json after each fact, so that a kill costs the fact in work alone. On a machine without a GPU, or
without a library, it says what it could not measure and runs to its end. `benchmarks/gpu/wheels.py` carries the
libraries.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.wheels import FOLDER
from benchmarks.machine import describe

SIZES = {"360p": (360, 640), "720p": (720, 1280), "1080p": (1080, 1920)}
CODECS = {
    "h264": ("libx264", "mp4", {"preset": "veryfast", "crf": "23"}),
    "hevc": ("libx265", "mp4", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "b": "2M"}),
}
RATE = 25
KEY_SECONDS = 5
PICTURE = (192, 320)
ROUNDS = 3


class Scale(NamedTuple):
    """How much is measured: the sizes of videos, their seconds, files a batch, and pictures."""

    sizes: tuple[str, ...]
    seconds: int
    files: int
    pictures: int


FULL = Scale(tuple(SIZES), 40, 8, 512)
QUICK = Scale(("360p",), 6, 2, 16)


class Session:
    """Facts by name, written as they come, until `end` on the monotonic clock."""

    def __init__(self, path: Path, end: float) -> None:
        self.path, self.end = path, end
        self.facts: dict[str, Any] = {}

    def add(self, name: str, fact: Callable[[], Any]) -> None:
        """A fact that cannot be determined is the reason."""
        start = time.monotonic()
        if start > self.end:
            self.facts[name] = "not measured: the time is over"
        else:
            try:
                self.facts[name] = fact()
            except Exception as error:  # whatever a library raises, the other facts count
                self.facts[name] = f"not measured: {type(error).__name__}: {str(error).strip()[:300]}"
        print(f"{name} ({time.monotonic() - start:.1f} s): {self.facts[name]}", flush=True)
        self.path.write_text(json.dumps(self.facts, indent=1, default=str) + "\n", "utf-8")


def libraries() -> dict[str, str]:
    """Versions, or why a library cannot be imported."""
    found = {}
    for name in ("torch", "av", "nvidia.dali", "torchcodec", "PIL"):
        try:
            found[name] = str(getattr(importlib.import_module(name), "__version__", "unknown"))
        except (ImportError, OSError, RuntimeError) as error:
            found[name] = f"not here: {str(error).splitlines()[0][:200]}"
    return found


def video_hardware() -> dict[str, str]:
    """What NVDEC takes: a line for each codec, chroma and bits, or the reason."""
    from reserve.data.decode.dali.nvdec import VideoHardware

    hardware = VideoHardware.of_this_machine()
    if hardware.reason:
        return {"reason": hardware.reason}
    return {
        f"{codec} {chroma} {bits} bits": f"{found.least[0]}x{found.least[1]} to {found.most[0]}x{found.most[1]}, "
        f"{found.macroblocks} macroblocks, {found.decoders} decoders"
        for (codec, chroma, bits), found in hardware.formats.items()
    } or {"reason": "the driver names no codec"}


def pictures(size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
    """A texture with shapes that move over it: uint8 [height, width, 3] each."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    texture = (128 + 60 * np.sin(columns / 23) * np.cos(rows / 17))[..., None] + np.zeros(3)
    texture = np.clip(texture + np.random.default_rng(0).normal(0, 6, texture.shape), 0, 255).astype(np.uint8)
    for number in range(count):
        picture = texture.copy()
        for shape in range(6):
            x = int(width * (0.5 + 0.4 * np.sin(0.02 * number * (shape + 1))))
            y = int(height * (0.5 + 0.4 * np.cos(0.03 * number + shape)))
            picture[max(y - 25, 0) : y + 25, max(x - 25, 0) : x + 25] = (
                40 * shape,
                255 - 40 * shape,
                20 * (number % 12),
            )
        yield picture


@functools.cache
def video(folder: Path, codec: str, size: str, seconds: int) -> Path:
    """A video with sound; made once."""
    import av

    encoder, suffix, options = CODECS[codec]
    path = folder / f"{codec}-{size}.{suffix}"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=RATE, options={**options, "g": str(KEY_SECONDS * RATE)})
        stream.height, stream.width = SIZES[size]
        stream.pix_fmt = "yuv420p"
        sound: Any = container.add_stream("aac" if suffix == "mp4" else "libopus", rate=48000, layout="mono")
        for number, picture in enumerate(pictures(SIZES[size], seconds * RATE)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(seconds * 48000) / 48000).astype(np.float32)
        for first in range(0, len(tone), 48000):
            block = av.AudioFrame.from_ndarray(tone[None, first : first + 48000], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 48000, first, Fraction(1, 48000)
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))
    return path


def middles(seconds: int) -> list[float]:
    """The middle of each segment of 5 s, as preparation asks for."""
    return [first + 2.5 for first in range(0, seconds - 4, 5)]


def seconds_of(function: Callable[[], Any]) -> float:
    """The median of a few runs after one that warms up."""
    function()
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def frames_of_videos(path: Path, scale: Scale) -> dict[str, Any]:
    """Frames/s of DALI over a batch of files, planned before, and of PyAV on one core; and how far they differ."""
    from reserve.data.decode.dali import DaliDecoder
    from reserve.data.decode.protocol import MediaLimits
    from reserve.data.decode.pyav import PyAVDecoder
    from reserve.data.images import resize, waiting_size
    from reserve.errors import Unsuited

    times = middles(scale.seconds)

    def by_pyav() -> list[np.ndarray]:
        with PyAVDecoder().open(path) as media:
            return [resize(frame, *waiting_size(*frame.shape[:2])) for frame in media.frames(times)]

    right = by_pyav()
    found: dict[str, Any] = {"times": len(times), "pyav_frames_per_s": len(times) / seconds_of(by_pyav)}
    dali = DaliDecoder()
    if (reason := dali.unavailable()) is not None:
        return {**found, "dali": f"not measured: {reason}"}
    with PyAVDecoder().open(path) as media:
        try:
            start = time.perf_counter()
            request = dali.request(media, path, times, MediaLimits())
        except Unsuited as error:
            return {**found, "dali": f"not measured: {error}"}
    found["plan_s"] = time.perf_counter() - start
    found["device"], requests = request.device, [request] * scale.files

    def by_dali() -> list[list[np.ndarray]]:
        return list(map(list, dali.frames_of(requests)))

    found["dali_frames_per_s"] = scale.files * len(times) / seconds_of(by_dali)
    differences = [np.abs(a.astype(int) - b) for a, b in zip(by_dali()[-1], right, strict=True)]
    found["difference_mean"] = float(np.mean([each.mean() for each in differences]))
    found["difference_max"] = int(max(each.max() for each in differences))
    return found


def example(path: Path, scale: Scale) -> dict[str, Any]:
    """Seconds for what an example takes of a file: sound by PyAV at 22050 Hz, the plan, and frames by DALI."""
    from reserve.data.decode.dali import DaliDecoder
    from reserve.data.decode.protocol import MediaLimits
    from reserve.data.decode.pyav import PyAVDecoder

    dali, times = DaliDecoder(), middles(scale.seconds)
    if (reason := dali.unavailable()) is not None:
        return {"reason": f"not measured: {reason}"}

    def sound() -> None:
        with PyAVDecoder().open(path) as media:
            media.soundtrack()

    def plan_and_frames() -> None:
        with PyAVDecoder().open(path) as media:
            request = dali.request(media, path, times, MediaLimits())
        list(map(list, dali.frames_of([request])))

    return {"sound_s": seconds_of(sound), "plan_and_frames_s": seconds_of(plan_and_frames)}


def training_pictures(scale: Scale, device: str) -> dict[str, Any]:
    """Images/s of JPEG files to the model's inputs by DALI on `device`, and by Pillow on one core."""
    from reserve.data.dali_pictures import DaliPictures
    from reserve.data.decode.dali.library import import_failure
    from reserve.data.encoded_images import EncodedImage
    from reserve.data.images import encode_jpeg, plan_training_image

    rng = np.random.default_rng(0)
    jpegs = [encode_jpeg(picture) for picture in pictures((288, 512), 8)]
    items = [
        EncodedImage("video", jpegs[i % 8], (288, 512), plan_training_image(288, 512, PICTURE, rng))
        for i in range(scale.pictures)
    ]
    found: dict[str, Any] = {
        "pillow_images_per_s": len(items) / seconds_of(lambda: [i.decoded(PICTURE) for i in items])
    }
    if (reason := import_failure()) is not None:
        return {**found, "dali": f"not measured: {reason}"}
    threads = len(os.sched_getaffinity(0))
    decode = DaliPictures(PICTURE, device, threads=threads)

    def run() -> None:
        decode(items)
        if device != "cpu":
            import torch

            torch.cuda.synchronize()

    return {**found, "device": device, "threads": threads, "dali_images_per_s": len(items) / seconds_of(run)}


def frames_by_torchcodec(path: Path, scale: Scale, device: str) -> dict[str, Any]:
    """Frames/s of torchcodec on `device` for one file."""
    from torchcodec.decoders import VideoDecoder

    times = middles(scale.seconds)

    def run() -> None:
        VideoDecoder(str(path), device=device).get_frames_played_at(seconds=times).data.cpu()

    return {"device": device, "frames_per_s": len(times) / seconds_of(run)}


def _of_video(folder: Path, codec: str, size: str, scale: Scale, fact: Callable[[Path, Scale], Any]) -> Any:
    return fact(video(folder, codec, size, scale.seconds), scale)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0: facts that cannot be determined are among the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding_lease", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=140.0, metavar="TOTAL", help="begin no fact after this time")
    parser.add_argument("--quick", action="store_true", help="small videos, for a rehearsal without a GPU")
    options = parser.parse_args(arguments)
    if (site := FOLDER / "site").is_dir():
        sys.path.append(str(site))
    options.out.mkdir(parents=True, exist_ok=True)
    session = Session(options.out / "decoding_lease.json", time.monotonic() + options.seconds)
    scale = QUICK if options.quick else FULL
    import torch

    has_gpu = torch.cuda.is_available()
    session.add("machine", describe)
    session.add("libraries", libraries)
    session.add("nvdec", video_hardware)
    for device in ["cpu", *(["cuda"] if has_gpu else [])]:
        session.add(f"pictures on {device}", functools.partial(training_pictures, scale, device))
    if not has_gpu:
        session.add("pictures on cuda", lambda: "not measured: no GPU here")
    with tempfile.TemporaryDirectory() as name:
        for size in scale.sizes:
            for codec in CODECS:
                of_video = functools.partial(_of_video, Path(name), codec, size, scale)
                session.add(f"frames of {codec} {size}", functools.partial(of_video, frames_of_videos))
                session.add(f"example of {codec} {size}", functools.partial(of_video, example))
                by_torchcodec = functools.partial(frames_by_torchcodec, device="cuda" if has_gpu else "cpu")
                session.add(f"torchcodec, {codec} {size}", functools.partial(of_video, by_torchcodec))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
