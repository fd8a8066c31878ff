"""Divides a video that is longer than one sequence into windows of consecutive segments."""

from __future__ import annotations

import sys
from itertools import pairwise

from reserve.batch.video_tokens import MAX_SEGMENTS
from reserve.data.video import Video
from reserve.data.video_sound import TimeSpan


def even_windows(segments: int, most: int = MAX_SEGMENTS) -> list[range]:
    """Consecutive runs of the numbers below `segments`, as few as have at most `most` each.

    Their lengths differ by one at most: a window of few segments would see little around each.
    """
    count = -(-segments // most)
    bounds = [segments * number // count for number in range(count + 1)] if count else [0]
    return [range(first, stop) for first, stop in pairwise(bounds)]


def video_windows(video: Video, start: float = 0.0, stop: float | None = None) -> list[tuple[TimeSpan, ...]]:
    """The windows of a video from `start` to `stop` seconds, by default all of it: of at most 8 segments of 5 s each.

    Raises ValueError and BadInput as `Video.segments` does.
    """
    segments = video.segments(start=start, stop=stop, most=sys.maxsize)
    return [tuple(segments[number] for number in window) for window in even_windows(len(segments))]
