"""The record of tests on a GPU: complete at any time."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from benchmarks.gpu.parts import ROOT

TESTS = """
import os
import pytest


def test_every_tile():
    pass


def test_passes():
    pass


def test_fails():
    assert "this" == "that"


def test_skips():
    pytest.skip("no reason")


def test_leaves():
    os._exit(3)
"""


def recorded(tmp_path, *options: str) -> str:
    (tmp_path / "test_recorded.py").write_text(TESTS)
    record = tmp_path / "record.txt"
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "benchmarks.gpu.record"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    subprocess.run([*run, "--record", str(record), *options, str(tmp_path)], cwd=ROOT, env=environment, check=False)
    return record.read_text()


def outcomes(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^(selected|started|passed|failed|skipped) \S*::(\w+)", text, re.MULTILINE)


def test_every_outcome_is_written_with_the_reason_of_a_failure(tmp_path):
    text = recorded(tmp_path, "-k", "not leaves")
    found = outcomes(text)
    assert [test for word, test in found if word == "selected"][-1] == "test_every_tile", "it should run last"
    assert [pair for pair in found if pair[0] not in ("selected", "started")] == [
        ("passed", "test_passes"),
        ("failed", "test_fails"),
        ("skipped", "test_skips"),
        ("passed", "test_every_tile"),
    ]
    assert "AssertionError" in text
    assert text.splitlines()[-1] == "of 4 tests: 2 passed, 1 failed, 1 skipped"


def test_a_process_that_dies_leaves_what_finished_and_what_ran(tmp_path):
    found = outcomes(recorded(tmp_path))
    assert ("passed", "test_passes") in found
    assert found[-1] == ("started", "test_leaves")
    assert ("selected", "test_every_tile") in found


def test_with_several_processes_a_crash_is_a_failure(tmp_path):
    pytest.importorskip("xdist")
    found = outcomes(recorded(tmp_path, "-n", "2"))
    assert ("failed", "test_leaves") in found
    assert {test for word, test in found if word == "passed"} == {"test_passes", "test_every_tile"}
    assert len([test for word, test in found if word == "selected"]) == 5
