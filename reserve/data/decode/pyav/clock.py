"""One continuous time axis for files whose clock restarts or jumps: recordings joined byte by byte, captured streams.

MPEG transport and program streams carry the clock of whoever sent them. Players go on playing where it breaks, and so
do these timestamps: what comes after a break continues where everything before it ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_BACKWARD = 0.5
"""Seconds by which a stream may step back without a break: damage and rounding."""
MAX_FORWARD = 10.0
"""Seconds beyond everything else in the file that are still a gap, as in FFmpeg; more is a break."""

MAX_SKEW = 1.0
"""Seconds by which the streams of one recording may end apart. One that ended earlier does not say where the recording
ended."""


@dataclass(slots=True)
class _Stream:
    """A stream's current stretch of the clock, and where on its clock the last packet was and the next one is due.

    `due_before` is where it was due before a gap, until the stream goes on regularly. `end` is where its presentation
    ends so far, on the continuous axis: decoding runs ahead of it.
    """

    stretch: int
    last: float
    due: float
    due_before: float | None = None
    end: float = -math.inf


class ContinuousClock:
    """Moves timestamps onto one axis, packet by packet in the order of the file.

    Streams cross a break one after another, since packets of the old clock may lie behind the first of the new one. The
    first to cross it decides the shift, and the others take the same: sound and picture stay together. A single damaged
    timestamp changes nothing for the packets after it.
    """

    def __init__(self) -> None:
        self._shifts = [0.0]
        """Seconds to add on each stretch of the clock."""
        self._streams: dict[int, _Stream] = {}
        self._end = 0.0
        """Where everything so far ends, on the continuous axis."""

    @property
    def has_breaks(self) -> bool:
        return len(self._shifts) > 1

    def shift(self, stream: int, time: float, duration: float, *, delay: float = 0.0, is_sparse: bool = False) -> float:
        """Seconds to add to the timestamps of a packet of stream number `stream` that is decoded at `time` and shown
        `delay` later.

        A sparse stream, such as captions, follows the others and decides nothing.
        """
        if is_sparse:
            return self._shifts[self._nearest(time, range(len(self._shifts)), self._end)]
        if not self._streams:
            self._end = time
        state = self._streams.setdefault(stream, _Stream(len(self._shifts) - 1, time, time))
        if abs(time - state.due) <= MAX_BACKWARD:
            # Some files claim another frame rate than they have.
            duration = max(duration, time - state.last)
            state.due_before = None
        else:
            self._cross(state, time)
        state.last, state.due = time, time + duration
        moved = self._shifts[state.stretch]
        state.end = max(state.end, state.due + delay + moved)
        self._end = max(self._end, state.end)
        return moved

    def _cross(self, state: _Stream, time: float) -> None:
        """Moves the stream to the stretch that `time` belongs to, which is not where its next packet was due."""
        due = state.due + self._shifts[state.stretch]
        others = [stretch for stretch in range(len(self._shifts)) if stretch != state.stretch]
        best = self._nearest(time, others, due) if others else state.stretch
        if abs(time + self._shifts[best] - due) <= MAX_BACKWARD:
            state.stretch = best  # Another stream is there already, or a damaged timestamp made this one leave it.
        elif state.due_before is not None and abs(time - state.due_before) <= 2 * MAX_BACKWARD:
            state.due_before = None  # The gap was a damaged timestamp.
        elif self._is_gap(state, time):
            state.due_before = state.due
        else:
            later = [stretch for stretch in others if stretch > state.stretch]
            best = self._nearest(time, later, self._end) if later else state.stretch
            if not later or abs(time + self._shifts[best] - self._end) > MAX_FORWARD:
                # Its decoding goes on where it was, unless this stream ended early.
                self._shifts.append((due if self._end - state.end <= MAX_SKEW else self._end) - time)
                best = len(self._shifts) - 1
            state.stretch = best

    def _is_gap(self, state: _Stream, time: float) -> bool:
        """Whether a stream only pauses. If the file as a whole has not jumped, a long pause is one too."""
        return time >= state.due and time + self._shifts[state.stretch] - self._end <= MAX_FORWARD

    def _nearest(self, time: float, stretches: Sequence[int], target: float) -> int:
        """The stretch that puts `time` nearest to `target`; the latest of equals."""
        return min(reversed(stretches), key=lambda stretch: abs(time + self._shifts[stretch] - target))
