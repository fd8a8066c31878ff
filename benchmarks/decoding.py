"""Decoding a video as pretraining does: the frames in the middle of 16 segments of 5 s, and all of the sound at
22050 Hz mono; both together (an example), and each alone.

Decoders differ in colour conversion, resampling and start, so their results are compared coarsely. Each time falls on a
frame, so that those that take the next frame have the same. A contender uses as many threads as it can; CPU seconds,
child processes included, are recorded with it.
"""

from __future__ import annotations

import functools
import os
import resource
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import decoding_peers as peers
from benchmarks.decoding_videos import NAMES, RATE, made_video
from benchmarks.interleaved import OURS, Contender, Measured, Missing, measure, publish, replayed
from benchmarks.machine import torch_threads
from reserve.data.decode import DECODERS, BatchDecoder, Decoder, FileDecoder, FrameRequest, MediaLimits
from reserve.data.decode.parallel import ParallelReader
from reserve.data.decode.pyav import PyAVDecoder

OP = "decoding"
TIMES = tuple(2.5 + 5 * segment for segment in range(16))
assert all((time * RATE).is_integer() for time in TIMES)
THREADS = os.cpu_count() or 1
ONE_THREAD, TORCHCODEC, DALI = f"{OURS}, one thread", f"{OURS} with torchcodec", f"{OURS} with DALI"
EVERY, SEEK = "PyAV and librosa, every frame", "PyAV and librosa, seeking"
RELEASED = "the released way"

Decode = Callable[[Path], Any]


def decoder_named(name: str, path: Path) -> Decoder:
    """That row of DECODERS, or Missing with the reason why it cannot decode the file here."""
    for decoder in (each.by_name() for each in DECODERS):
        if decoder.name == name:
            reason = decoder.unavailable()
            if reason is None:
                with PyAVDecoder().open(path) as media:
                    reason = decoder.unsuited(media.info)
            if reason is not None:
                raise Missing(reason)
            return decoder
    raise Missing(f"there is no decoder {name!r}")


def reader(path: Path, name: str = "pyav", threads: int = THREADS) -> ParallelReader:
    decoder = decoder_named(name, path)
    assert isinstance(decoder, FileDecoder)
    return ParallelReader(decoder, path, threads=threads)


def our_example(path: Path, name: str = "pyav", threads: int = THREADS) -> peers.Example:
    frames, sound = reader(path, name, threads).frames_and_sound(TIMES)
    return np.stack(frames), sound.waveform


def our_frames(path: Path, name: str = "pyav", threads: int = THREADS) -> np.ndarray:
    return np.stack(reader(path, name, threads).frames(TIMES))


def our_sound(path: Path, name: str = "pyav") -> np.ndarray:
    with reader(path, name).open() as media:
        return media.soundtrack().waveform


def batched_frames(path: Path) -> np.ndarray:
    return _batched(path)[0]


def batched_example(path: Path) -> peers.Example:
    """A batch decoder's frames, with sound by PyAV, as in preparation: sound comes while the file is planned."""
    frames, sound = _batched(path, with_sound=True)
    return frames, sound


def _batched(path: Path, *, with_sound: bool = False) -> tuple[np.ndarray, Any]:
    decoder, limits = decoder_named("dali", path), MediaLimits()
    assert isinstance(decoder, BatchDecoder)
    with PyAVDecoder().open(path, limits) as media:
        sound = media.soundtrack().waveform if with_sound else None
        request: FrameRequest = decoder.request(media, path, TIMES, limits)
    (frames,) = (np.stack(list(found)) for found in decoder.frames_of([request]))
    return frames, sound


def _example(frames: Callable[..., np.ndarray], sound: Decode) -> Decode:
    return lambda path: (frames(path, TIMES), sound(path))


def _frames(decode: Callable[..., Any]) -> Decode:
    return lambda path: decode(path, TIMES)


EXAMPLES: dict[str, Decode] = {
    OURS: our_example,
    ONE_THREAD: functools.partial(our_example, threads=1),
    TORCHCODEC: functools.partial(our_example, name="torchcodec"),
    DALI: batched_example,
    EVERY: _example(peers.every_frame, peers.librosa_sound),
    SEEK: _example(peers.frames_by_seeking, peers.librosa_sound),
    "torchcodec": _example(peers.torchcodec_frames, peers.torchcodec_sound),
    RELEASED: _frames(peers.released_way),
}
FRAMES: dict[str, Decode] = {
    OURS: our_frames,
    ONE_THREAD: functools.partial(our_frames, threads=1),
    TORCHCODEC: functools.partial(our_frames, name="torchcodec"),
    f"{TORCHCODEC}, one thread": functools.partial(our_frames, name="torchcodec", threads=1),
    DALI: batched_frames,
    "PyAV, every frame": _frames(peers.every_frame),
    "PyAV, seeking": _frames(peers.frames_by_seeking),
    "torchcodec": _frames(peers.torchcodec_frames),
    "OpenCV": _frames(peers.opencv_frames),
}
SOUND: dict[str, Decode] = {
    OURS: our_sound,
    TORCHCODEC: functools.partial(our_sound, name="torchcodec"),
    "PyAV and librosa": peers.librosa_sound,
    "torchcodec": peers.torchcodec_sound,
}


def picture_difference(out: np.ndarray, ours: np.ndarray) -> float:
    """Mean absolute difference, on the scale of 0 to 255."""
    return float(np.abs(out.astype(np.float32) - ours).mean()) if out.shape == ours.shape else float("inf")


def loudness_difference(out: np.ndarray, ours: np.ndarray) -> float:
    """Largest difference of the root mean squares of tenths of a second, each relative to its mean.

    Decoders differ by some ms in their start, and by a factor in how they mix to mono. The first and the last second do
    not count. Infinite if the lengths differ by more than 0.1 s.
    """
    tenth = peers.SAMPLE_RATE // 10
    if abs(len(out) - len(ours)) > tenth:
        return float("inf")
    length = min(len(out), len(ours)) // tenth * tenth
    loudness = [np.sqrt(np.square(sound[:length].reshape(-1, tenth)).mean(1))[10:-10] for sound in (out, ours)]
    return float(np.abs(loudness[0] / loudness[0].mean() - loudness[1] / loudness[1].mean()).max())


PICTURE_TOLERANCE, LOUDNESS_TOLERANCE = 4.0, 0.1


def example_difference(out: peers.Example, ours: peers.Example) -> float:
    """The larger of both, each as a fraction of its tolerance."""
    pictures = picture_difference(out[0], ours[0]) / PICTURE_TOLERANCE
    return max(pictures, loudness_difference(out[1], ours[1]) / LOUDNESS_TOLERANCE)


JOBS: dict[str, tuple[Mapping[str, Decode], Callable[[Any, Any], float], float, tuple[str, ...]]] = {
    "example": (EXAMPLES, example_difference, 1.0, NAMES),
    "frames": (FRAMES, picture_difference, PICTURE_TOLERANCE, NAMES),
    # The others' sound is that of the first.
    "sound": (SOUND, loudness_difference, LOUDNESS_TOLERANCE, ("h264 360p", "vp9 360p")),
}
"""Implementations, how they are compared, the tolerance, and the videos."""


def counting_cpu(decode: Decode, path: Path) -> Contender:
    """A contender whose details have the median CPU seconds of a call, those of child processes included."""
    spent: list[float] = []

    def call() -> None:
        before = cpu_seconds()
        decode(path)
        spent.append(cpu_seconds() - before)
        contender.details["cpu_seconds"] = statistics.median(spent)

    contender = Contender(call, lambda: decode(path))
    return contender


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@functools.cache
def on_cpu(job: str, video: str) -> Measured:
    """One thread in NumPy and PyTorch; decoders choose their own number of threads."""
    implementations, difference, tolerance, _ = JOBS[job]
    path = made_video(video)
    builders = {name: functools.partial(counting_cpu, decode, path) for name, decode in implementations.items()}
    with torch_threads(1):
        measured = measure(builders, rounds=7, difference=difference, tolerance=tolerance, warm_up=1)
    with PyAVDecoder().open(path) as media:
        track, seconds = media.info.video, media.duration()
    assert track is not None
    size = [track.height, track.width]
    measured.facts = {"seconds_of_video": seconds, "size": size, "torch_threads": torch.get_num_threads()}
    return measured


@replayed
@pytest.mark.parametrize(
    ("job", "video", "implementation"),
    [(job, video, name) for job, (named, *_, videos) in JOBS.items() for video in videos for name in named],
)
def test_cpu(benchmark, job, video, implementation):
    publish(benchmark, on_cpu(job, video), implementation, op=OP, device="CPU", label=f"{job}, {video}")
