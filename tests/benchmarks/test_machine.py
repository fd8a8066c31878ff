"""Peak memory of a call, and the limits of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

from benchmarks.machine import cpu_limits, is_changed, peak_extra_bytes, torch_threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def allocates(numbers: int):
    kept = torch.ones(1 << 24)  # before the call: not counted
    return lambda: torch.ones(numbers).sum() + kept[0]


def dies():
    os._exit(3)


def test_peak_is_what_the_call_allocates():
    numbers = 1 << 25
    peak = peak_extra_bytes(allocates, (numbers,), 1)
    assert 0.95 * 4 * numbers <= peak <= 1.2 * 4 * numbers


def test_a_process_that_dies_is_an_error_and_not_waited_for():
    with pytest.raises(BrokenProcessPool):
        peak_extra_bytes(dies, (), 1)


def test_limits_are_positive():
    assert all(value > 0 for value in cpu_limits(1, 1).values())


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with torch_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_a_stored_result_does_not_count_as_a_change(tmp_path):
    assert is_changed(tmp_path) is None
    source, result = tmp_path / "a.py", tmp_path / "benchmarks" / "results" / "a.json"
    result.parent.mkdir(parents=True)
    for file in (source, result):
        file.write_text("1")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)
    result.write_text("2")
    assert is_changed(tmp_path) is False
    source.write_text("2")
    assert is_changed(tmp_path) is True
