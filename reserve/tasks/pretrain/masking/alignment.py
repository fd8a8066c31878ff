"""Assigns words to audio subsegments, and moves words between neighbours for text2audio (SPEC 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reserve.config import SEGMENT_SECONDS, DataConfig
from reserve.tasks.pretrain.masking.subsegments import subsegment_windows
from reserve.tasks.pretrain.text import UnmaskedText

REACH_SECONDS = 0.125
"""A neighbour's word joins a target if its centre is less than this far from the target's audio."""

RIGHT, LEFT = 1, -1


@dataclass(frozen=True, slots=True)
class Alignment:
    """The n word tokens of an example, assigned to its N audio subsegments.

    `lengths` int64 [N], the number of tokens of each subsegment, in order; `centers` float32 [n], the tokens' centres;
    `window_start`, `window_end` float32 [N], the audio of each subsegment. Times are seconds on one axis over the
    example: a segment starts where the previous one ends in real time, but times within a segment are divided by its
    playback speed (SPEC 7).
    """

    lengths: np.ndarray
    centers: np.ndarray
    window_start: np.ndarray
    window_end: np.ndarray


def align(text: UnmaskedText, subsegment_starts: np.ndarray, data: DataConfig, audio_seq_length: int) -> Alignment:
    """Assigns each token to the audio window of its segment with the nearest centre, never going backwards."""
    start, end = subsegment_windows(subsegment_starts, data, audio_seq_length)
    centers = (text.token_start.astype(np.float32) + text.token_end.astype(np.float32)) / np.float32(2)
    distance = np.abs(centers[:, None] - ((start + end) / np.float32(2))[text.token_segment])
    rows = distance.argmin(1) + text.token_segment * data.num_audio_subsegments
    # Tokens are in segment order and later segments have larger rows, so no token crosses a segment boundary.
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
    """The `lengths` of the subsegments, int64 [N], after text2audio moves tokens into its `targets` (ascending).

    Tokens keep their order, so a move only changes two neighbouring lengths.
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
    """The targets whose neighbour on that side exists and is not a target itself."""
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
