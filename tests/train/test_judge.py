"""Decisions on heartbeats, with times that the tests make up."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from reserve.errors import RankLost
from reserve.train.beats import Beat, Process
from reserve.train.judge import Judge, Verdict

ELSEWHERE = Process("far", 7, "another machine", 1)


def beats(*ranks: Beat) -> dict[int, Beat]:
    return {beat.rank: beat for beat in ranks}


def beat(rank: int, tick: int = 0, step: int = 5, count: int = 0, phase: str = "waiting for data", **changes) -> Beat:
    return Beat(rank, replace(ELSEWHERE, pid=70 + rank), tick, step, count, phase, **changes)


def judge(world_size: int = 2, rank_timeout: float = 60.0, hang_timeout: float = 0.0) -> Judge:
    return Judge(0, world_size, rank_timeout=rank_timeout, hang_timeout=hang_timeout)


def watch(judge: Judge, end: int, ranks, start: int = 0, every: int = 5) -> tuple[int, Verdict] | None:
    """The first verdict and its second, where each look at second t finds `ranks(t)`."""
    for now in range(start, end, every):
        if (verdict := judge.observe(1000.0 + now, beats(*ranks(now)))) is not None:
            return now, verdict
    return None


def test_ranks_that_beat_are_well():
    assert watch(judge(), 10_000, lambda now: [beat(0, now), beat(1, now)]) is None


def test_a_rank_that_falls_silent_is_lost_after_the_timeout():
    found = watch(judge(), 1000, lambda now: [beat(0, now), beat(1, min(now, 100))])
    assert found is not None
    now, verdict = found
    assert now == 160
    assert (verdict.kind, verdict.ranks, verdict.status) == ("lost", (1,), 75)
    assert verdict.message == (
        "rank 1 (far, pid 71) sent no heartbeat for 60 s (train.rank_timeout), so the process is stopped or its host "
        "is lost; last seen waiting for data at step 5"
    )


def test_ranks_that_are_lost_together_are_named_together():
    found = watch(judge(3), 1000, lambda now: [beat(0, now), beat(1, min(now, 100)), beat(2, min(now, 110))])
    assert found is not None
    assert found[1].ranks == (1, 2)


def test_a_rank_that_has_left_may_be_silent():
    assert watch(judge(), 1000, lambda now: [beat(0, now), beat(1, left=True)]) is None


def test_a_stop_of_the_observer_is_not_the_others_silence():
    """As where a scheduler suspends the whole job: nobody has sent anything meanwhile."""
    watched = judge()
    assert watch(watched, 100, lambda now: [beat(0, now), beat(1, now)]) is None
    assert watch(watched, 100_001, lambda now: [beat(0, now), beat(1, 95)], start=100_000) is None
    assert watch(watched, 101_000, lambda now: [beat(0, now), beat(1, now)], start=100_005) is None


def test_a_rank_that_never_joins_is_named():
    found = watch(judge(hang_timeout=200.0), 1000, lambda now: [beat(0, now, now)])
    assert found is not None
    assert found[0] == 200
    assert found[1].message == "rank 1 did not join within 200 s"


def test_the_rank_that_is_furthest_behind_hangs():
    ahead = {"count": 1, "phase": "computing"}
    found = watch(
        judge(3, hang_timeout=300.0), 1000, lambda now: [beat(0, now, **ahead), beat(1, now), beat(2, now, **ahead)]
    )
    assert found is not None
    now, verdict = found
    assert now == 300
    assert (verdict.kind, verdict.ranks, verdict.status) == ("hangs", (1,), 75)
    assert verdict.message == (
        "no progress for 300 s (train.hang_timeout): rank 1 (far, pid 71) still waiting for data at step 5; the others "
        "wait, the furthest computing at step 5"
    )


def test_an_earlier_step_is_further_behind_than_an_earlier_phase():
    found = watch(judge(hang_timeout=300.0), 1000, lambda now: [beat(0, now, 6, 0), beat(1, now, 5, 2, "saving")])
    assert found is not None
    assert found[1].ranks == (1,)


def test_ranks_that_hang_at_the_same_place_are_all_named():
    found = watch(judge(hang_timeout=300.0), 1000, lambda now: [beat(0, now), beat(1, now)])
    assert found is not None
    assert found[1].ranks == (0, 1)
    assert "rank 0 (far, pid 70), rank 1 (far, pid 71) still waiting for data at step 5" in found[1].message


@pytest.mark.parametrize("change", [{"patient": True}, {"step": -1}])
def test_a_rank_that_gets_on_or_takes_its_time_keeps_the_others_waiting(change):
    def ranks(now: int) -> list[Beat]:
        other = beat(1, now, **change)
        return [beat(0, now), replace(other, step=now // 200) if other.step < 0 else other]

    assert watch(judge(hang_timeout=300.0), 5000, ranks) is None


def test_without_a_hang_timeout_nothing_hangs():
    assert watch(judge(), 100_000, lambda now: [beat(0, now), beat(1, now)]) is None


def test_a_process_of_this_machine_that_has_ended_is_lost_at_once():
    dead = Beat(1, replace(Process.this(), started=1), phase="computing", step=3)
    verdict = judge().gone(beats(beat(0), dead))
    assert verdict is not None
    assert verdict.message.endswith(f", pid {os.getpid()}) died; last seen computing at step 3")
    assert judge().gone(beats(beat(0), replace(dead, left=True))) is None
    assert judge().gone(beats(beat(0), replace(dead, process=Process.this()))) is None


def test_a_store_that_does_not_answer_is_lost_after_the_timeout():
    watched = judge()
    watched.answered(1000.0)
    assert watched.unanswered(1030.0, "rank 0", refused=False) is None
    assert watched.unanswered(1055.0, "rank 0", refused=False) is None
    verdict = watched.unanswered(1060.0, "rank 0", refused=False)
    assert verdict is not None
    assert verdict.message == "lost rank 0: no answer for 60 s (train.rank_timeout)"


def test_a_store_that_is_closed_is_lost_at_once():
    watched = judge()
    assert watched.unanswered(1000.0, "rank 0", refused=True) is None, "it is not open yet"
    watched.answered(1001.0)
    verdict = watched.unanswered(1002.0, "rank 0", refused=True)
    assert verdict is not None
    assert verdict.message == "lost rank 0: nothing listens there any more"


def test_a_store_may_open_late():
    watched = judge(hang_timeout=300.0)
    silent = [watched.unanswered(1000.0 + now, "rank 0", refused=True) is not None for now in range(0, 310, 10)]
    assert silent == [False] * 30 + [True]


@pytest.mark.parametrize(("kind", "error", "status"), [("failed", RuntimeError, 1), ("lost", RankLost, 75)])
def test_a_verdict_travels_as_text(kind, error, status):
    verdict = Verdict.from_text(Verdict(kind, (1, 3), "rank 1 …").to_text())
    assert verdict == Verdict(kind, (1, 3), "rank 1 …")
    assert verdict.status == status
    assert type(verdict.error()) is error
    assert str(verdict.error()) == "rank 1 …"
