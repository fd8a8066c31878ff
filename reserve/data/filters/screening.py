"""Whether a prepared video stays out of a data set, and its signature: a pure function of its store file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reserve.config import SEGMENT_SECONDS, FilterConfig
from reserve.data.filters.language import other_language, wanted_codes
from reserve.data.filters.pictures import is_same_picture, picture_hash, thumbnail
from reserve.data.filters.signature import make_signature
from reserve.data.store import load_segments, naming_store, read_summary
from reserve.data.types import Segments

FILTERS = ("few_words", "language", "static", "duplicates")
"""Names of the filters in the order in which they are applied. The first that a video fails counts."""
# Segments in memory at a time.
_PIECE = 256


@dataclass(frozen=True, slots=True)
class Screening:
    """The name of the `filter` that skips a video and the `reason`, both "" if none does; its `signature` for
    find_duplicates, "" if it is skipped, if duplicates are kept, or if its words are too few to compare."""

    filter: str = ""
    reason: str = ""
    signature: str = ""


def check_filters(config: FilterConfig) -> None:
    """Fails before any work: raises ValueError for a language that is none, ModuleNotFoundError without py3langid where
    languages are filtered."""
    if wanted_codes(config.languages):
        import py3langid  # noqa: F401


def screen_store(path: str | Path, config: FilterConfig) -> Screening:
    """Applies the filters to the store file of one video, and makes its signature. Reads long videos piece by piece.

    Raises BadInput if the file is damaged.
    """
    with naming_store(path):
        summary = read_summary(path)
    video = _Video()
    for piece in _pieces(path, summary.num_segments):
        with naming_store(path):
            video.add(piece)
    if failed := video.failed_filter(summary.choice.transcript, summary.seconds, config):
        return Screening(*failed)
    return Screening(signature=make_signature(video.texts, video.hashes) if config.duplicates else "")


def _pieces(path: str | Path, count: int) -> Iterator[Segments]:
    for start in range(0, count, _PIECE):
        yield load_segments(path, start, min(start + _PIECE, count))


class _Video:
    """What the filters need to know of a video; its segments are added piece by piece."""

    def __init__(self) -> None:
        self.video_id = ""
        self.texts: list[str] = []
        self.hashes: list[int] = []
        self._words = 0
        self._seconds = 0
        self._same_pictures = 0
        self._last: np.ndarray | None = None

    def add(self, piece: Segments) -> None:
        self.video_id = piece.video_id
        self.texts += [" ".join(word.text for word in words) for words in piece.words]
        self._words += sum(map(len, piece.words))
        self._seconds += SEGMENT_SECONDS * int(piece.playback_speed.sum())
        for frame in piece.frames:
            small = thumbnail(frame)
            self.hashes.append(picture_hash(small))
            self._same_pictures += self._last is not None and is_same_picture(self._last, small)
            self._last = small

    def failed_filter(self, transcript: str, length: float, config: FilterConfig) -> tuple[str, str] | None:
        """The first filter that skips the video of `length` seconds (0: not known), and the reason."""
        # Not of the segments alone: they end where the words do.
        words_per_minute = 60 * self._words / max(length, self._seconds, SEGMENT_SECONDS)
        if words_per_minute < config.min_words_per_minute:
            return "few_words", (
                f"{words_per_minute:.1f} words a minute; filter.min_words_per_minute is {config.min_words_per_minute:g}"
            )
        if config.languages and (found := other_language(self.video_id, transcript, self.texts, config.languages)):
            language, source = found
            return "language", (
                f"in language {language} {source}; filter.languages allows {', '.join(config.languages)}"
            )
        neighbours = max(len(self.hashes) - 1, 1)
        if self._same_pictures > config.max_static_share * neighbours:
            return "static", (
                f"{self._same_pictures} of its {neighbours} neighbouring frames show the same picture; "
                f"filter.max_static_share is {config.max_static_share:g}"
            )
        return None
