"""A clip's frames and sound from its file, in several views, and their stored form.

SPEC 10.9 leaves times, sound and augmentation open: what is here is this project's choice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reserve.config import SEGMENT_SECONDS
from reserve.data.float_images import stored_picture
from reserve.data.images import decode_jpeg, trim_black_bars
from reserve.data.video import Video, open_video
from reserve.data.video_sound import TimeSpan
from reserve.tasks.finetuning import check_scales
from reserve.tasks.record_cache import Parts
from reserve.tasks.stored_sound import SEGMENT_FRAMES, decode_log_mel, encode_log_mel, subsegments, to_bytes

VERSION = "kinetics600 1"
"""Changes when the stored form or what is in it changes."""
_RECORD = "record.json"


@dataclass(frozen=True)
class KineticsSettings:
    """How Kinetics-600's clips become examples. All of it is this project's choice, since the release has no code for
    this task (SPEC 10.9)."""

    segments: int = 2
    """Segments of at most 5 s that a view shows, with a frame in the middle of each: the rate of pretraining."""
    views: int = 3
    """Views of a clip, each shifted in time. Training draws one, testing averages the probabilities of all."""
    max_shift: float = 1.0
    """Seconds by which the first view is early and the last one late."""
    random_scale_min: float = 1.0
    """Smallest factor on the size that a training picture is resized to, before it is cropped at random."""
    random_scale_max: float = 1.1
    """Largest such factor."""
    cache: Path | None = None
    """Folder of prepared clips that runs share; null keeps them in the run's folder."""

    def __post_init__(self) -> None:
        if not 1 <= self.segments <= 8:
            raise ValueError(f"examples.segments must be in [1, 8]; got {self.segments}")
        if self.views < 1:
            raise ValueError(f"examples.views must be at least 1; got {self.views}")
        if not 0 <= self.max_shift < float("inf"):
            raise ValueError(f"examples.max_shift must be finite and at least 0; got {self.max_shift}")
        check_scales(self.random_scale_min, self.random_scale_max)

    @property
    def shifts(self) -> list[float]:
        """The shift of each view, seconds; a single view is not shifted."""
        return [0.0] if self.views == 1 else np.linspace(-self.max_shift, self.max_shift, self.views).tolist()

    @property
    def stored_form(self) -> str:
        """What of the settings decides the stored form of a clip."""
        return f"{self.segments} {self.views} {self.max_shift!r}"


def view_spans(duration: float, segments: int, shift: float) -> list[TimeSpan]:
    """The segments of a view: consecutive, at most 5 s each, in the middle of a clip of `duration` seconds but for the
    shift. A part of a segment beyond the clip is silent, and its frame is the clip's first or last."""
    length = min(float(SEGMENT_SECONDS), duration / segments)
    first = (duration - segments * length) / 2 + shift
    starts = [first + number * length for number in range(segments)]
    return [TimeSpan(start, start + length, min(max(start + length / 2, 0.0), duration)) for start in starts]


def prepare_clip(path: Path, settings: KineticsSettings) -> Parts:
    """The stored form of a clip: frames of all views and, if it has any, sound. Raises BadInput naming the file."""
    video = open_video(path, threads=1)
    views = [view_spans(video.duration, settings.segments, shift) for shift in settings.shifts]
    spans = [span for view in views for span in view]
    frames = trim_black_bars(video.frames(span.mid for span in spans))
    parts = {f"{number}.frame.jpg": stored_picture(np.ascontiguousarray(frame)) for number, frame in enumerate(frames)}
    sound_factor = None
    clips = _sound(video, spans)
    if clips is not None:
        log_mels, sound_factor = to_bytes(clips.reshape(len(spans), SEGMENT_FRAMES, -1))
        parts |= {f"{number}.sound.jpg": encode_log_mel(log_mel) for number, log_mel in enumerate(log_mels)}
    return {_RECORD: json.dumps({"sound_factor": sound_factor}).encode(), **parts}


def _sound(video: Video, spans: list[TimeSpan]) -> np.ndarray | None:
    """float32 [spans, 3, 60, 65], None without sound that can be decoded: clips from the web may have damaged sound and
    good pictures."""
    return video.clips(spans) if video.can_be_heard else None


def read_view(parts: Parts, view: int, segments: int) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The frames uint8 [h, w, 3] of a view's segments, and their sound float32 [segments, 3, 60, 65] or None."""
    numbers = range(view * segments, (view + 1) * segments)
    frames = [decode_jpeg(parts[f"{number}.frame.jpg"]) for number in numbers]
    factor = json.loads(parts[_RECORD])["sound_factor"]
    if factor is None:
        return frames, None
    sounds = np.stack([decode_log_mel(parts[f"{number}.sound.jpg"], factor) for number in numbers])
    return frames, subsegments(sounds)
