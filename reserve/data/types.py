"""What is read from one video (captions, words, metadata), and the segments cut from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MAX_SECONDS = 1e9
"""Times in stored segments are within this, or the file is damaged: larger ones can be infinite in float32."""


@dataclass(frozen=True, slots=True)
class Cue:
    """A caption: `lines` as written, on screen from `start` to `end` seconds."""

    start: float
    end: float
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word with its start and end, in seconds on the time axis of its context."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A transcript that was not used, by name, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What was taken of a video: the name of the `transcript` with its words and of the `audio` track, and the
    transcripts passed over, best first."""

    transcript: str = ""
    audio: str = ""
    passed_over: tuple[PassedOver, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodedBy:
    """The name of the decoder that gave a video's pictures, why one that comes before it did not, and the name that was
    asked for. The defaults are those of earlier releases, which recorded none."""

    decoder: str = "pyav"
    reason: str = ""
    asked: str = "auto"


@dataclass(frozen=True, slots=True)
class VideoMetadata:
    """What the publisher wrote about a video."""

    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class Segments:
    """The n segments cut from one video (SPEC 1), as stored on disk.

    Shapes: `start` float64 [n], seconds into the video; `playback_speed` int32 [n], in {1, 2, 3};
    `frames` n JPEG files (the frame at the middle of each segment, shorter side at most 288 and longer at most
    512 pixels); `log_mel` float16 [n, 188, 64] (SPEC 2), or [n, 0, 64] where it is left to be made of `sound`;
    `words` one list a segment, times in seconds from the segment's start, already divided by its playback speed.
    `sound`, if it was kept: n FLAC files, mono, 5 s times the playback speed long, the whole track's peak at full
    scale; otherwise empty.
    """

    video_id: str
    start: np.ndarray
    playback_speed: np.ndarray
    frames: list[bytes]
    log_mel: np.ndarray
    words: list[list[Word]]
    metadata: VideoMetadata = field(default_factory=VideoMetadata)
    sound: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.start)
