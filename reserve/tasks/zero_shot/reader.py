"""Answers questions about a video file, decoding and encoding what they share once."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from reserve.batch.video_tokens import MAX_SEGMENTS, video_tokens
from reserve.batch.vocabulary import MASK, SPECIAL_TOKENS
from reserve.data.float_images import zero_shot_image
from reserve.data.images import BlackBars, resize
from reserve.data.tokenizer import Tokenizer
from reserve.data.video import Video
from reserve.data.video_sound import TimeSpan
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.zero_shot.encoding import JointQuestion, encode_frames, encode_masks, encode_sounds

FRAMES_AT_ONCE = 64
"""Distinct frames decoded before they are encoded, fewer where they are large."""
PIXELS_AT_ONCE = FRAMES_AT_ONCE * 1920 * 1080
"""Pixels of these frames, 400 MB; more only where the frames of one query have more."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Query:
    """A question about a video: its segments in time, and for each its text, or None where it is heard.

    A text holds the question's MASK as the string `<|MASK|>`.
    """

    segments: tuple[TimeSpan, ...]
    texts: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if len(self.segments) != len(self.texts):
            raise ValueError(f"a query of {len(self.segments)} segments has {len(self.texts)} texts; they must match")
        if not 1 <= len(self.segments) <= MAX_SEGMENTS:
            raise ValueError(f"a query must have 1 to {MAX_SEGMENTS} segments; got {len(self.segments)}")

    def heard(self) -> Iterator[TimeSpan]:
        """The segments whose sound is heard."""
        return (span for span, text in zip(self.segments, self.texts, strict=True) if text is None)


class _Kept(Generic[Key]):
    """Results by key, kept while a later batch needs them. A key is of one moment of the video, its `owner`."""

    def __init__(self, last_batches: dict[Any, int]) -> None:
        self._last = last_batches
        self.values: dict[Key, Any] = {}
        self._owner: dict[Key, Any] = {}

    def put(self, key: Key, value: Any, owner: Any) -> None:
        self.values[key], self._owner[key] = value, owner

    def drop_after(self, batch: int) -> None:
        """Drops what no batch after `batch` needs."""
        for key in [key for key, owner in self._owner.items() if self._last[owner] <= batch]:
            del self.values[key], self._owner[key]


class VideoReader:
    """Encodes queries about videos with a model in evaluation mode.

    A video without sound, or with a track that cannot be decoded, is read all the same: its segments that would be
    heard have their frame alone. Several threads may read videos at the same time: they decode in parallel and take
    turns with the model.
    """

    def __init__(self, model: MerlotReserve, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._encoded: dict[str, list[int]] = {}
        self._turn = threading.Lock()

    def read(self, video: Video, queries: Sequence[Query]) -> list[torch.Tensor]:
        """The unit vectors at the MASKs of each query: float32 [masks, hidden].

        The frames of a query lose the bars that are black in all of them (SPEC 10.6). Each distinct frame and sound is
        decoded once and encoded once. Memory holds frames within FRAMES_AT_ONCE and
        PIXELS_AT_ONCE, but the sound of the whole video.
        Raises BadInput if the video cannot be decoded.
        """
        views = sorted({query.segments for query in queries}, key=lambda spans: [span.mid for span in spans])
        batches = list(_batches(views, _frames_at_once(video)))
        members: dict[tuple[TimeSpan, ...], list[int]] = {view: [] for view in views}
        for number, query in enumerate(queries):
            members[query.segments].append(number)
        heard = [{span for view in batch for i in members[view] for span in queries[i].heard()} for batch in batches]
        has_sound = any(heard) and video.can_be_heard
        frames = _Frames(self._model, video, batches, self._turn)
        sounds: _Kept[TimeSpan] = _Kept(_last_batches(heard))
        found: list[torch.Tensor | None] = [None] * len(queries)
        for number, batch in enumerate(batches):
            pooled, frame_rows = frames.encode(number, batch)
            clips, sound_rows = self._sounds(video, sorted(heard[number]) if has_sound else [], sounds)
            asked = [i for view in batch for i in members[view]]
            questions = [
                self._question(queries[i], frame_rows[queries[i].segments], sound_rows, has_sound) for i in asked
            ]
            with self._turn:
                encoded = encode_masks(self._model, pooled, clips, questions)
            for i, vectors in zip(asked, encoded, strict=True):
                found[i] = vectors
            sounds.drop_after(number)
        return [vectors for vectors in found if vectors is not None]

    def _sounds(
        self, video: Video, spans: Sequence[TimeSpan], kept: _Kept[TimeSpan]
    ) -> tuple[torch.Tensor | None, dict[TimeSpan, int]]:
        """The pooled sounds of `spans`, None without any, and the row of each."""
        if not spans:
            return None, {}
        new = [span for span in spans if span not in kept.values]
        if new:
            clips = video.clips(new)
            with self._turn:
                encoded = encode_sounds(self._model, clips)
            for span, pooled in zip(new, encoded, strict=True):
                kept.put(span, pooled, span)
        return torch.stack([kept.values[span] for span in spans]), {span: row for row, span in enumerate(spans)}

    def _question(
        self, query: Query, frames: np.ndarray, sounds: dict[TimeSpan, int], has_sound: bool
    ) -> JointQuestion:
        silent: list[int] | None = None if has_sound else []
        texts = [silent if text is None else self._ids(text) for text in query.texts]
        rows = [sounds.get(span, -1) if text is None else -1 for span, text in zip(query.segments, texts, strict=True)]
        tokens = video_tokens(texts, audio_tokens=self._model.config.audio_token_length)
        return JointQuestion(tokens, frames, np.array(rows))

    def _ids(self, text: str) -> list[int]:
        if text not in self._encoded:
            ids = self._tokenizer.encode(text)
            # Annotations may spell other special tokens, such as AUDIOSPAN, which stand for what is not there.
            self._encoded[text] = [token for token in ids if token == MASK or token >= len(SPECIAL_TOKENS)]
        return self._encoded[text]


class _Frames:
    """The pooled frames of a video, batch after batch."""

    def __init__(
        self,
        model: MerlotReserve,
        video: Video,
        batches: Sequence[Sequence[tuple[TimeSpan, ...]]],
        turn: threading.Lock,
    ) -> None:
        self._model, self._video, self._turn = model, video, turn
        last = _last_batches([{span.mid for view in batch for span in view} for batch in batches])
        self._decoded: _Kept[float] = _Kept(last)
        self._pooled: _Kept[tuple[Any, ...]] = _Kept(last)
        self._size: tuple[int, ...] | None = None

    def encode(
        self, number: int, views: Sequence[tuple[TimeSpan, ...]]
    ) -> tuple[torch.Tensor, dict[tuple[TimeSpan, ...], np.ndarray]]:
        """The pooled frames of batch `number`, and the rows of each of its views int [segments]."""
        new = sorted({span.mid for view in views for span in view} - self._decoded.values.keys())
        for mid, frame in zip(new, self._video.frames(new), strict=True):
            self._size = self._size or frame.shape[:2]  # streams may change their size midway
            self._decoded.put(mid, resize(frame, *self._size), mid)
        keys = {view: self._keys(view) for view in views}
        distinct = list(dict.fromkeys(key for view in views for key in keys[view]))
        size = self._model.config.image_size
        missing = [key for key in distinct if key not in self._pooled.values]
        if missing:
            images = [zero_shot_image(self._decoded.values[mid][y1:y2, x1:x2], size) for mid, y1, y2, x1, x2 in missing]
            with self._turn:
                encoded = encode_frames(self._model, np.stack(images))
            for key, pooled in zip(missing, encoded, strict=True):
                self._pooled.put(key, pooled, key[0])
        stacked = torch.stack([self._pooled.values[key] for key in distinct])
        row = {key: index for index, key in enumerate(distinct)}
        rows = {view: np.array([row[key] for key in keys[view]]) for view in views}
        self._decoded.drop_after(number)
        self._pooled.drop_after(number)
        return stacked, rows

    def _keys(self, view: Sequence[TimeSpan]) -> list[tuple[Any, ...]]:
        """The time, rows and columns of each frame of a view: two views may trim the same frame differently."""
        bars = BlackBars()
        for span in view:
            bars.add(self._decoded.values[span.mid])
        rows, columns = bars.content(trim_black=True)
        return [(span.mid, rows.start, rows.stop, columns.start, columns.stop) for span in view]


def _frames_at_once(video: Video) -> int:
    """How many distinct frames of a video are decoded before they are encoded."""
    track = video.info.video
    pixels = 0 if track is None else track.width * track.height
    return min(FRAMES_AT_ONCE, PIXELS_AT_ONCE // max(pixels, 1))


def _batches(views: Iterable[tuple[TimeSpan, ...]], most: int) -> Iterator[list[tuple[TimeSpan, ...]]]:
    """Views in runs of at most `most` distinct frames, at least one view each."""
    batch: list[tuple[TimeSpan, ...]] = []
    mids: set[float] = set()
    for view in views:
        own = {span.mid for span in view}
        if batch and len(mids | own) > most:
            yield batch
            batch, mids = [], set()
        batch.append(view)
        mids |= own
    if batch:
        yield batch


def _last_batches(used: Sequence[set[Any]]) -> dict[Any, int]:
    """The number of the last batch that uses each thing."""
    return {thing: number for number, things in enumerate(used) for thing in things}
