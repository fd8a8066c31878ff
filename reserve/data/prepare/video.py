"""One video with its companions to Segments (SPEC 1, "From video to segments"), in three stages: plan it, decode its
frames, assemble the segments. A decoder that takes batches of videos comes between the first two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from reserve.config import SEGMENT_SECONDS, DataConfig
from reserve.data.decode.choice import PassedOverDecoder
from reserve.data.decode.protocol import BatchDecoder, Deadline, FileDecoder, FrameRequest, Media, MediaLimits
from reserve.data.prepare.segments import (
    SegmentSound,
    Window,
    cut_windows,
    stored_frames,
    video_rng,
    window_words,
)
from reserve.data.prepare.words import find_words, none_usable
from reserve.data.sources.discover import VideoSource
from reserve.data.sources.metadata import load_metadata
from reserve.data.sources.tracks import choose_audio_track
from reserve.data.types import Choice, Segments, VideoMetadata, Word
from reserve.errors import BadInput, Unsuited


@dataclass(frozen=True, slots=True)
class PreparationSettings:
    """What decides how a video is prepared: the same settings, decoder, file and id give the same segments.

    `audio_track` counts from 0; None chooses by the languages of `data`. `keep_sound` keeps the segments' sound as FLAC
    files beside their spectrograms.
    """

    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0
    audio_track: int | None = None
    limits: MediaLimits = field(default_factory=MediaLimits)
    keep_sound: bool = False


@dataclass(frozen=True, slots=True)
class PlannedVideo:
    """All of a video's segments but their frames: `windows` in order of time, `log_mel` float16 [windows, frames, mels]
    and `words` for each, their `sound` where it is kept, `seconds` of the video, the `choice` of its tracks, and the
    `warnings` so far. `request` is what the `decoder` of batches is asked for, None where the open file gives frames.
    """

    video_id: str
    windows: list[Window]
    log_mel: np.ndarray
    sound: list[bytes]
    words: list[list[Word]]
    metadata: VideoMetadata
    seconds: float
    choice: Choice
    warnings: tuple[str, ...]
    request: FrameRequest | None = None
    decoder: str = ""

    @property
    def frame_times(self) -> tuple[float, ...]:
        """The middle of each window in seconds: when its frame is on screen."""
        return tuple((window.start + window.end) / 2 for window in self.windows)


@dataclass(frozen=True, slots=True)
class PreparedVideo:
    """The segments of a video, its length in `seconds`, the `choice` of its tracks, `warnings` about what went wrong
    without stopping the preparation, and the `decoder` of its pictures with the `reason` if a preferred one was passed
    over."""

    segments: Segments
    seconds: float
    choice: Choice
    warnings: tuple[str, ...]
    decoder: str = ""
    reason: str = ""


def prepare_video(source: VideoSource, settings: PreparationSettings, *decoders: FileDecoder) -> PreparedVideo:
    """Decodes `source` with the first of `decoders` that is for it, and cuts it into segments. Raises BadInput with the
    reason if that cannot be done."""
    with _open(source, settings, decoders) as (media, decoder, against):
        return _with_frames(_plan(source, media, settings), media, decoder, against)


def plan_video(
    source: VideoSource, settings: PreparationSettings, decoders: Sequence[FileDecoder], frames_by: BatchDecoder
) -> PlannedVideo | PreparedVideo:
    """The first stage of prepare_video, with the request for `frames_by`, which takes the frames of several videos at
    once. A video that it is not for is prepared with the frames of the file decoder."""
    with _open(source, settings, decoders) as (media, decoder, against):
        plan = _plan(source, media, settings)
        reason = frames_by.unsuited(media.info)
        if reason is None:
            try:
                request = frames_by.request(media, source.path, plan.frame_times, settings.limits)
                return replace(plan, request=request, decoder=frames_by.name)
            except Unsuited as error:
                reason = str(error)
        return _with_frames(plan, media, decoder, (PassedOverDecoder(frames_by.name, reason), *against))


def _with_frames(
    plan: PlannedVideo, media: Media, decoder: FileDecoder, against: Sequence[PassedOverDecoder]
) -> PreparedVideo:
    prepared = assemble_video(plan, media.frames(plan.frame_times))
    name = decoder.name
    if (fallback := media.fallbacks.get("pictures")) is not None:
        name, against = fallback.decoder, (*against, PassedOverDecoder(name, fallback.reason))
    return replace(prepared, decoder=name, reason="; ".join(map(str, against)))


def assemble_video(plan: PlannedVideo, frames: Iterable[np.ndarray], *, threads: int = 0) -> PreparedVideo:
    """The last stage. `frames` are uint8 RGB [height, width, 3], one for each of `plan.frame_times`; `threads` as in
    `stored_frames`."""
    # One more than requested, so that too many are noticed and an endless iterator ends.
    stored = stored_frames(islice(frames, len(plan.windows) + 1), threads=threads)
    if len(stored) != len(plan.windows):
        least = "at least " if len(stored) > len(plan.windows) else ""
        raise ValueError(f"the decoder returned {least}{len(stored)} frames for {len(plan.windows)} times")
    segments = Segments(
        video_id=plan.video_id,
        start=np.array([window.start for window in plan.windows], dtype=np.float64),
        playback_speed=np.array([window.playback_speed for window in plan.windows], dtype=np.int32),
        frames=stored,
        log_mel=plan.log_mel,
        words=plan.words,
        metadata=plan.metadata,
        sound=plan.sound,
    )
    return PreparedVideo(segments, plan.seconds, plan.choice, plan.warnings, plan.decoder)


@contextmanager
def _open(
    source: VideoSource, settings: PreparationSettings, decoders: Sequence[FileDecoder]
) -> Iterator[tuple[Media, FileDecoder, tuple[PassedOverDecoder, ...]]]:
    """The open file, the decoder that opened it, and those before it with the reason against each."""
    deadline = Deadline(settings.limits.max_decode_seconds)
    against: tuple[PassedOverDecoder, ...] = ()
    for decoder in decoders:
        with decoder.open(source.path, settings.limits, deadline) as media:
            reason = None if decoder is decoders[-1] else decoder.unsuited(media.info)
            if reason is None:
                yield media, decoder, against
                return
        against += (PassedOverDecoder(decoder.name, reason),)
    raise ValueError("there is no decoder to open files with")


def _plan(source: VideoSource, media: Media, settings: PreparationSettings) -> PlannedVideo:
    # Fail fast: decoding the sound of a long file takes a while.
    media.info.check_video(settings.limits)
    track = settings.audio_track
    if track is None:
        track = choose_audio_track(media.info.audio, settings.data.languages)
    media.info.check_audio(track)
    if not source.candidates and not media.info.text:
        raise BadInput(none_usable(source.passed_over, media))
    soundtrack = media.soundtrack(track=track, sample_rate=settings.data.sample_rate)
    duration = soundtrack.media_end
    words, choice, warnings = find_words(source, media, track, duration, settings.data.languages)
    windows = cut_windows(words, duration, video_rng(settings.seed, source.video_id))
    if not windows:
        raise BadInput(
            f"too short: {duration:.1f} s with the first word at {words[0].start:.1f} s; a segment takes "
            f"{SEGMENT_SECONDS:g} s and the last second stays unused"
        )
    metadata, warning = load_metadata(source.info)
    sound = SegmentSound.of(soundtrack, windows, settings.data.sample_rate)
    return PlannedVideo(
        video_id=source.video_id,
        windows=windows,
        log_mel=sound.log_mels(settings.data),
        sound=sound.flac() if settings.keep_sound else [],
        words=[window_words(words, window) for window in windows],
        metadata=metadata,
        seconds=duration,
        choice=choice,
        warnings=(*warnings, *([warning] if warning else [])),
    )
