from __future__ import annotations

import json
import os
import platform

import pytest
import torch

from reserve_kernels.bench import report
from reserve_kernels.bench.interleaved import OURS, Measured


def measured() -> Measured:
    seconds = {OURS: [1.0, 2.0, 3.0], "peer": [3.0, 4.0, 5.0]}
    details = {OURS: {"difference_from_ours": 0.0}, "peer": {"difference_from_ours": 1e-6}}
    return Measured(seconds, details, missing={"other": "not installed"}, wrong={"bad": "it differs"})


def test_rows_have_medians_quartiles_and_what_is_missing():
    ours, peer, other, bad = report.rows("g", "c", 2, measured())
    assert (ours["seconds"], ours["low"], ours["high"], ours["ours_is_faster_by"]) == (2.0, 1.0, 3.0, 1.0)
    assert (peer["seconds"], peer["ours_is_faster_by"], peer["rounds"]) == (4.0, 2.0, 3)
    assert peer["difference_from_ours"] == 1e-6
    assert (other["missing"], bad["wrong"]) == ("not installed", "it differs")
    assert {row["threads"] for row in (ours, peer, other, bad)} == {2}


def test_one_round_has_no_spread():
    row, *_ = report.rows("g", "c", None, Measured({OURS: [2.0]}, {OURS: {}}))
    assert row["low"] == row["seconds"] == row["high"] == 2.0


def test_a_table_of_text_is_aligned():
    first, _, line, *rest = report.text(report.rows("g", "c", 1, measured())).splitlines()
    assert first.index("time") == line.index("4 s")
    assert line.endswith("2.00x")
    assert "not installed" in rest[0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.3456, "12.3 s"), (0.0123, "12.3 ms"), (4.56e-5, "45.6 µs"), (7.8e-9, "7.8 ns")]
)
def test_durations_have_three_digits_and_a_unit(seconds, text):
    assert report.duration(seconds) == text


def test_nothing_names_the_machine_s_user_or_folders():
    described = json.dumps(report.machine(torch.device("cpu")))
    for private in (platform.node(), os.getcwd(), os.path.expanduser("~")):
        assert private not in described
