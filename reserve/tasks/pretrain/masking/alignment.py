"""Which audio subsegment a word belongs to, and text2audio's moves between neighbours (SPEC 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reserve.config import SEGMENT_SECONDS, DataConfig
from reserve.tasks.pretrain.masking.subsegments import subsegment_windows
from reserve.tasks.pretrain.text import UnmaskedText

REACH_SECONDS = 0.125
"""How far beyond a target's audio the nearest word of a neighbour may be centred and still join the target."""

RIGHT, LEFT = 1, -1


@dataclass(frozen=True, slots=True)
class Alignment:
    """The n word tokens of an example laid on its N audio subsegments.

    `lengths` int64 [N], tokens of each subsegment, in order; `centers` float32 [n], the tokens' centres;
    `window_start`, `window_end` float32 [N]. Times are seconds on one axis over the example, on which a segment starts
    where the ones before end in real time, while times within it are divided by its playback speed (SPEC 7).
    """

    lengths: np.ndarray
    centers: np.ndarray
    window_start: np.ndarray
    window_end: np.ndarray


def align(text: UnmaskedText, subsegment_starts: np.ndarray, data: DataConfig, audio_seq_length: int) -> Alignment:
    """Give every token to the nearest centre of its segment's audio windows, never backwards within a segment."""
    start, end = subsegment_windows(subsegment_starts, data, audio_seq_length)
    centers = (text.token_start.astype(np.float32) + text.token_end.astype(np.float32)) / np.float32(2)
    distance = np.abs(centers[:, None] - ((start + end) / np.float32(2))[text.token_segment])
    rows = distance.argmin(1) + text.token_segment * data.num_audio_subsegments
    # Tokens come by segment and rows of a later segment are larger, so this is non-decreasing segment by segment.
    rows = np.maximum.accumulate(rows)

    durations = np.float32(SEGMENT_SECONDS) * text.playback_speed.astype(np.float32)
    segment_start = np.cumsum(durations, dtype=np.float32) - durations
    return Alignment(
        lengths=np.bincount(rows, minlength=data.num_subsegments),
        centers=centers + segment_start[text.token_segment],
        window_start=(start + segment_start[:, None]).ravel(),
        window_end=(end + segment_start[:, None]).ravel(),
    )


def move_tokens(
    alignment: Alignment, targets: np.ndarray, *, fill_right_first: bool, grow_right_first: bool
) -> np.ndarray:
    """The `lengths` of the subsegments, int64 [N], after text2audio's moves towards its `targets` (ascending).

    Tokens keep their order, so a move is a change of two neighbouring lengths.
    """
    lengths = alignment.lengths.copy()
    for side in _sides(fill_right_first):
        receivers = _receivers(targets, len(lengths), side)
        receivers = receivers[(lengths[receivers] == 0) & (lengths[receivers + side] >= 2)]
        _take_one(lengths, receivers, side)
    for side in _sides(grow_right_first):
        receivers = _receivers(targets, len(lengths), side)
        near = _gaps(alignment, lengths, receivers, side) < REACH_SECONDS
        _take_one(lengths, receivers[near & (lengths[receivers + side] > 1)], side)
    return lengths


def _sides(right_first: bool) -> tuple[int, int]:
    return (RIGHT, LEFT) if right_first else (LEFT, RIGHT)


def _receivers(targets: np.ndarray, num_rows: int, side: int) -> np.ndarray:
    """The targets whose neighbour on that side exists and is no target."""
    neighbors = targets + side
    return targets[(neighbors >= 0) & (neighbors < num_rows) & ~np.isin(neighbors, targets)]


def _take_one(lengths: np.ndarray, receivers: np.ndarray, side: int) -> None:
    lengths[receivers + side] -= 1
    lengths[receivers] += 1


def _gaps(alignment: Alignment, lengths: np.ndarray, receivers: np.ndarray, side: int) -> np.ndarray:
    """Seconds from the end of each receiver's audio to the nearest token centre of its neighbour on that side.

    Centres need not be ordered (garbled word times), so the nearest token is not always the one that would move.
    """
    rows = np.repeat(np.arange(len(lengths)), lengths)
    nearest = np.full(len(lengths), side * np.inf, dtype=np.float32)
    if side == RIGHT:
        np.minimum.at(nearest, rows, alignment.centers)
        return nearest[receivers + RIGHT] - alignment.window_end[receivers]
    np.maximum.at(nearest, rows, alignment.centers)
    return alignment.window_start[receivers] - nearest[receivers + LEFT]
