"""What is done to runs by `make reliability`, and how it is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.compare_runs import Comparison
from tests.train.fall_back_cases import CASES
from tests.train.fall_backs import CannotRun, Case, Found, Runs, _plain, run_case

pytestmark = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds processes in /proc")


@pytest.fixture(scope="module")
def runs(narrated_videos, tmp_path_factory) -> Runs:
    return Runs(narrated_videos / "train", tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def reference(runs) -> Path:
    return runs.finish(runs.folder / "reference")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_case_holds(runs, reference, name):
    result = run_case(CASES[name], runs, name, Comparison(reference))
    if "not run" in result:
        pytest.skip(result["not run"])
    assert result["differences"] == 0


class Nothing:
    losses, tensors = 0, 0
    differences: tuple[str, ...] = ()


def test_a_case_that_cannot_run_says_why(tmp_path):
    def do(runs, run):
        raise CannotRun("nothing can be mounted")

    result = run_case(Case("an event", "an answer", do), Runs(tmp_path, tmp_path), "name", Nothing())
    assert result == {"event": "an event", "answer": "an answer", "not run": "nothing can be mounted"}


def test_what_was_found_is_recorded(tmp_path):
    case = Case("an event", "an answer", lambda runs, run: Found([75, 1], 1.234, f"{run}/x said it"))
    result = run_case(case, Runs(tmp_path, tmp_path), "name", Nothing())
    assert (result["status"], result["seconds"], result["said"]) == ([75, 1], 1.23, "RUN/x said it")


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("/tmp/x/run/a is full", "RUN/a is full"),
        ("process 123 on host (since 2026-11-28 13:05:02+00:00) trains", "process PID on host (since TIME) trains"),
        ("rank 1 (host, pid 4567) died", "rank 1 (host, pid PID) died"),
        ("a loading process (12345) died of signal 9", "a loading process (PID) died of signal 9"),
    ],
)
def test_what_differs_from_run_to_run_is_left_out(said, plain):
    assert _plain(said, Path("/tmp/x/run")) == plain
