"""Which cases are listed as slower than another implementation, and that each of the stored ones has a reason."""

from __future__ import annotations

import pytest

from benchmarks.report import slower
from benchmarks.report.results import Case, Machine, Timing, load
from benchmarks.report.slower import Reason


def case(**medians: float) -> Case:
    timings = {
        name.replace("_", " "): Timing(median, median, median, median, 5, {}) for name, median in medians.items()
    }
    return Case("a-cpu", "an op", "an op, CPU, 1 thread, spans", "", timings)


def machine(*cases: Case) -> Machine:
    info = {"cpu": {"brand_raw": "A CPU", "count": 2}, "gpu": None}
    return Machine("a-cpu", {"run": {"machine_info": info}}, list(cases))


def test_a_faster_peer_is_listed_with_the_ratio():
    row = slower.table([machine(case(reserve=1.0, a_peer=0.5, other=0.8))]).splitlines()[2]
    assert row == "| A CPU, 2 cores, no GPU | an op | CPU, 1 thread, spans | a peer | 0.50x | not explained |"


@pytest.mark.parametrize(
    "medians",
    [{"a_peer": 0.96}, {"a_peer": 2.0}, {"a_peer,_less:_no_position": 0.5}, {}],
    ids=["noise", "slower", "less", "alone"],
)
def test_noise_and_those_that_do_less_do_not_count(medians):
    assert slower.table([machine(case(reserve=1.0, **medians))]) == "None."


def test_our_own_variants_count():
    assert slower.slower_cases([machine(case(reserve=1.0, reserve_by_hand=0.9))])


def test_a_reason_is_that_of_the_op_the_case_and_the_peer(monkeypatch):
    faster = case(reserve=1.0, a_peer=0.5)
    others = [
        Reason("other op", "", "a peer", "no"),
        Reason("an op", "joint", "a peer", "no"),
        Reason("an op", "", "b", "no"),
    ]
    monkeypatch.setattr(slower, "REASONS", (*others, Reason("an op", "spans", "a peer", "it is so")))
    assert slower.reason(faster, "a peer") == "it is so"
    monkeypatch.setattr(slower, "REASONS", tuple(others))
    assert slower.reason(faster, "a peer") == slower.NO_REASON


def test_every_stored_case_in_which_ours_is_slower_has_a_reason():
    found = [
        (case.machine, case.group, peer)
        for case, peer in slower.slower_cases(load())
        if slower.reason(case, peer) == slower.NO_REASON
    ]
    assert found == []


def test_every_reason_is_of_a_stored_case():
    used = {slower.reason(case, peer) for case, peer in slower.slower_cases(load())}
    assert {reason.why for reason in slower.REASONS} <= used
