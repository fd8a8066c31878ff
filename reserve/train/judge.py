"""Decides from the heartbeats of the ranks whether one is lost or all of them hang."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from reserve.errors import RankLost
from reserve.train.beats import Beat

JOINING = 1800.0
"""Seconds until a rank that never came counts as lost where train.hang_timeout is 0; PyTorch waits as long."""


@dataclass(frozen=True)
class Verdict:
    """Why all ranks must end, and the ranks to blame. A rank that `failed` had an exception of its own; one that is
    `lost` or `hangs` was ended or held up by something else."""

    kind: Literal["failed", "lost", "hangs"]
    ranks: tuple[int, ...]
    message: str

    @property
    def status(self) -> int:
        """The exit status: 75 (EX_TEMPFAIL) asks for a resume."""
        return 1 if self.kind == "failed" else 75

    def error(self) -> RuntimeError:
        """What the other ranks raise."""
        return RuntimeError(self.message) if self.kind == "failed" else RankLost(self.message)

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | bytes) -> Verdict:
        values = json.loads(text)
        return cls(values["kind"], tuple(values["ranks"]), values["message"])


class Judge:
    """Judges heartbeats as one rank sees them.

    Time is that in which this process could look: of a longer gap between two looks, as after a stop of this process
    or of its whole machine, only half of `rank_timeout` counts. Nobody is to blame for what nobody could send.
    Timeouts are in seconds; see `TrainConfig`.
    """

    def __init__(self, rank: int, world_size: int, *, rank_timeout: float, hang_timeout: float) -> None:
        self._rank, self._world_size = rank, world_size
        self._rank_timeout, self._hang_timeout = rank_timeout, hang_timeout
        self._joining = hang_timeout or JOINING
        self._clock = _Clock(rank_timeout / 2)
        self._answers = _Clock(rank_timeout / 2)
        self._answered = 0.0
        self._reachable = False
        self._ticks: dict[int, tuple[int, float]] = {}
        self._places: dict[int, tuple[tuple[int, int, str], float]] = {}

    def observe(self, now: float, beats: Mapping[int, Beat]) -> Verdict | None:
        """Judges what was read from the store at `now`, seconds of a monotonic clock. This rank's own beat is in it."""
        now = self._clock.advance(now)
        for rank, beat in beats.items():
            place = (*beat.place, beat.phase)
            if rank not in self._ticks or self._ticks[rank][0] != beat.tick:
                self._ticks[rank] = beat.tick, now
            if rank not in self._places or self._places[rank][0] != place:
                self._places[rank] = place, now
        return self._missing(now, beats) or self._silent(now, beats) or self._hanging(now, beats)

    def gone(self, beats: Mapping[int, Beat]) -> Verdict | None:
        """Judges whether processes of this machine have ended without a word."""
        gone = [beat for rank, beat in beats.items() if rank != self._rank and not beat.left and beat.process.is_gone()]
        return _lost(gone, "died") if gone else None

    def answered(self, now: float) -> None:
        """Counts an answer of the store."""
        self._answered, self._reachable = self._answers.advance(now), True

    def unanswered(self, now: float, store: str, *, refused: bool) -> Verdict | None:
        """Judges the silence of the store, whose description is `store`. `refused`: nothing listens at its address."""
        silence = self._answers.advance(now) - self._answered
        limit = self._rank_timeout if self._reachable else self._joining
        if refused and self._reachable:
            return Verdict("lost", (), f"lost {store}: nothing listens there any more")
        if silence >= limit:
            setting = " (train.rank_timeout)" if self._reachable else ""
            return Verdict("lost", (), f"lost {store}: no answer for {limit:g} s{setting}")
        return None

    def _missing(self, now: float, beats: Mapping[int, Beat]) -> Verdict | None:
        missing = [rank for rank in range(self._world_size) if rank not in beats]
        if not missing or now < self._joining:
            return None
        names = ", ".join(f"rank {rank}" for rank in missing)
        return Verdict("lost", tuple(missing), f"{names} did not join within {self._joining:g} s")

    def _silent(self, now: float, beats: Mapping[int, Beat]) -> Verdict | None:
        silence = {
            rank: now - self._ticks[rank][1] for rank, beat in beats.items() if rank != self._rank and not beat.left
        }
        if max(silence.values(), default=0.0) < self._rank_timeout:
            return None
        # The ranks of a host are lost together, but their last heartbeats came one after another.
        silent = [beats[rank] for rank, seconds in silence.items() if seconds >= self._rank_timeout / 2]
        limit = f"{self._rank_timeout:g} s (train.rank_timeout)"
        return _lost(silent, f"sent no heartbeat for {limit}, so the process is stopped or its host is lost")

    def _hanging(self, now: float, beats: Mapping[int, Beat]) -> Verdict | None:
        running = [beat for beat in beats.values() if not beat.left]
        # While a rank takes its time the others wait for it.
        if not self._hang_timeout or not running or any(beat.patient for beat in running):
            return None
        if any(now - self._places[beat.rank][1] < self._hang_timeout for beat in running):
            return None
        last = min(beat.place for beat in running)
        behind = [beat for beat in running if beat.place == last]
        ahead = [beat for beat in running if beat.place != last]
        message = (
            f"no progress for {self._hang_timeout:g} s (train.hang_timeout): {_names(behind)} still {_where(behind)}"
        )
        if ahead:
            message += f"; the others wait, the furthest {_where([max(ahead, key=lambda beat: beat.place)])}"
        return Verdict("hangs", tuple(beat.rank for beat in behind), message)


class _Clock:
    """Seconds since the first reading, of which no gap counts more than `longest`."""

    def __init__(self, longest: float) -> None:
        self._longest, self._seconds, self._last = longest, 0.0, None

    _last: float | None

    def advance(self, now: float) -> float:
        if self._last is not None:
            self._seconds += min(now - self._last, self._longest)
        self._last = now
        return self._seconds


def _lost(beats: Sequence[Beat], how: str) -> Verdict:
    return Verdict("lost", tuple(b.rank for b in beats), f"{_names(beats)} {how}; last seen {_where(beats)}")


def _names(beats: Sequence[Beat]) -> str:
    return ", ".join(beat.name for beat in beats)


def _where(beats: Sequence[Beat]) -> str:
    return ", ".join(dict.fromkeys(beat.where for beat in beats))
