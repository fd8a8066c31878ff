"""One video with its companions to Segments: the whole way of SPEC 1 "From video to segments"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from reserve.config import SEGMENT_SECONDS, DataConfig
from reserve.data.decode.deadline import Deadline
from reserve.data.decode.pyav import MediaFile, MediaLimits
from reserve.data.decode.sound import read_soundtrack
from reserve.data.prepare.segments import centre, cut_windows, log_mels, stored_frames, video_rng, window_words
from reserve.data.sources.discover import VideoSource
from reserve.data.sources.metadata import load_metadata
from reserve.data.sources.transcripts import load_embedded_transcripts, load_transcript
from reserve.data.types import Segments, Word
from reserve.errors import BadInput

_MIN_SHARE_INSIDE = 0.5


@dataclass(frozen=True, slots=True)
class PreparationSettings:
    """What decides how a video is prepared: the same settings, file and id give the same segments.

    `audio_track` counts from 0.
    """

    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0
    audio_track: int = 0
    limits: MediaLimits = field(default_factory=MediaLimits)


@dataclass(frozen=True, slots=True)
class PreparedVideo:
    """Segments of a video, `seconds` of it there were, `transcript` that gave the words, and what went wrong on the
    way without stopping it."""

    segments: Segments
    seconds: float
    transcript: str
    warnings: tuple[str, ...]


def prepare_video(source: VideoSource, settings: PreparationSettings) -> PreparedVideo:
    """Decodes `source` and cuts it into segments. Raises BadInput with the reason where that cannot be done."""
    deadline = Deadline(settings.limits.max_decode_seconds)
    with MediaFile(source.path, settings.limits, deadline) as media:
        media.video_stream()
        media.audio_stream(settings.audio_track)
        if not source.transcripts and not media.container.streams.subtitles:
            raise BadInput("no transcript beside it and no text track in it")
        soundtrack = read_soundtrack(media, track=settings.audio_track, sample_rate=settings.data.sample_rate)
        duration = soundtrack.media_end
        words, transcript, warnings = _find_words(source, media, duration)
        windows = cut_windows(words, duration, video_rng(settings.seed, source.video_id))
        if not windows:
            raise BadInput(
                f"too short: {duration:.1f} s with the first word at {words[0].start:.1f} s; a segment takes "
                f"{SEGMENT_SECONDS:g} s and the last second stays unused"
            )
        middles = [(window.start + window.end) / 2 for window in windows]
        frames = stored_frames(media.frames(middles))
    metadata, warning = load_metadata(source.info)
    segments = Segments(
        video_id=source.video_id,
        start=np.array([window.start for window in windows], dtype=np.float64),
        playback_speed=np.array([window.playback_speed for window in windows], dtype=np.int32),
        frames=frames,
        log_mel=log_mels(soundtrack, windows, settings.data),
        words=[window_words(words, window) for window in windows],
        metadata=metadata,
    )
    return PreparedVideo(segments, duration, transcript, (*warnings, *([warning] if warning else [])))


def _find_words(source: VideoSource, media: MediaFile, duration: float) -> tuple[list[Word], str, list[str]]:
    """Words of the first usable transcript in the order of their centres, its name, and why those before it were not
    used."""
    refused: list[str] = []
    for path in source.transcripts:
        try:
            return _words_inside(load_transcript(path), duration), path.name, refused
        except BadInput as error:
            refused.append(f"{path.name}: {error}")
    words, reasons = load_embedded_transcripts(media)
    refused += reasons
    if words is not None:
        try:
            return _words_inside(words, duration), "embedded", refused
        except BadInput as error:
            refused.append(f"embedded text: {error}")
    raise BadInput(f"no usable transcript ({'; '.join(refused)})" if refused else "no transcript with words")


def _words_inside(words: Sequence[Word], duration: float) -> list[Word]:
    """The words spoken before the video ends, or BadInput where most come after: a transcript of something else."""
    inside = [word for word in words if centre(word) < duration]
    if len(inside) < _MIN_SHARE_INSIDE * len(words):
        raise BadInput(
            f"{len(words) - len(inside)} of its {len(words)} words come after the end of the video at {duration:.1f} s"
        )
    return sorted(inside, key=centre)
