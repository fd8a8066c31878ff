"""Encodes frames and sound as small video and audio files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

# An AVI cannot say that a track starts early, as B-frames and the delay of MP3 and AAC need.
_CODECS = {"mp4": ("libx264", "aac"), "avi": ("mpeg4", "pcm_s16le")}


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    frame_rate: int,
    audio: np.ndarray | None,
    sample_rate: int,
    *,
    container: str = "mp4",
) -> None:
    """Writes RGB frames uint8 [height, width, 3], one size and even sides, and mono `audio` float32 [samples].

    `container` is "mp4", with H.264 and AAC, or "avi", with MPEG-4 Part 2 and PCM. Without `audio` the file has no
    sound track. There must be at least one frame.
    """
    import av

    with av.open(str(path), "w", format=container) as file:
        video_codec, audio_codec = _CODECS[container]
        video = _video_stream(file, video_codec, frame_rate)
        sound = None if audio is None else _audio_stream(file, audio_codec, sample_rate)
        for number, frame in enumerate(frames):
            if number == 0:
                video.height, video.width = frame.shape[:2]
            file.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(video.encode())
        if audio is not None:
            for packet in _encoded_audio(sound, audio, sample_rate):
                file.mux(packet)


def write_mp3(path: Path, audio: np.ndarray, sample_rate: int) -> None:
    """Writes mono `audio` float32 [samples] as an MP3 file."""
    import av

    with av.open(str(path), "w", format="mp3") as file:
        for packet in _encoded_audio(_audio_stream(file, "libmp3lame", sample_rate), audio, sample_rate):
            file.mux(packet)


def _video_stream(file: Any, codec: str, frame_rate: int) -> Any:
    stream = file.add_stream(codec, rate=frame_rate)
    stream.pix_fmt = "yuv420p"
    stream.options = {"g": str(2 * frame_rate), "threads": "1"}
    if codec == "libx264":
        stream.options |= {"preset": "ultrafast", "crf": "26"}
    else:
        stream.bit_rate = 1_000_000
    return stream


def _audio_stream(file: Any, codec: str, sample_rate: int) -> Any:
    stream = file.add_stream(codec, rate=sample_rate)
    stream.layout = "mono"
    if codec != "pcm_s16le":
        stream.bit_rate = 64_000
        stream.options = {"aac_coder": "fast"} if codec == "aac" else {"compression_level": "9"}  # the fastest
    return stream


def _encoded_audio(stream: Any, audio: np.ndarray, sample_rate: int) -> Iterator[Any]:
    import av

    for start in range(0, len(audio), sample_rate):
        frame = av.AudioFrame.from_ndarray(audio[None, start : start + sample_rate], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, start, Fraction(1, sample_rate)
        yield stream.encode(frame)
    yield stream.encode()
