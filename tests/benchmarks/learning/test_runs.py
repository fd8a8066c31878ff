"""Runs of their own processes: finished ones are kept, others repeated."""

from __future__ import annotations

import pytest

from benchmarks.learning.runs import Run, finish_all, run_one

MODULE = "tests.benchmarks.learning.counted"


def runs(folder, **settings):
    return [Run(folder / name, {"name": name, **settings}) for name in ("one", "two", "three")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, finish_all(MODULE, runs(folder))


def test_results_are_in_the_order_of_the_runs(finished):
    _, found = finished
    assert [result["settings"]["name"] for result in found] == ["one", "two", "three"]
    assert all(result["threads"] == "1" and result["provenance"]["threads"] == 1 for result in found)


def test_finished_runs_are_kept(finished, monkeypatch):
    folder, found = finished
    monkeypatch.setattr("benchmarks.learning.runs._finish", lambda *given: pytest.fail("it was repeated"))
    assert finish_all(MODULE, runs(folder)) == found


def test_other_settings_and_again_repeat(tmp_path, monkeypatch):
    done = []

    def finish(module, run):
        done.append(run.folder.name)
        run_one(run.folder, lambda folder, settings: {"rate": settings.get("rate", 0)})

    monkeypatch.setattr("benchmarks.learning.runs._finish", finish)
    finish_all(MODULE, runs(tmp_path))
    (tmp_path / "one" / "left over").touch()
    assert [result["rate"] for result in finish_all(MODULE, runs(tmp_path, rate=2))] == [2, 2, 2]
    assert not (tmp_path / "one" / "left over").exists()
    assert (tmp_path / "one.old1" / "left over").exists()  # finished runs take long: they are kept
    finish_all(MODULE, runs(tmp_path, rate=2), again=True)
    assert len(done) == 9


def test_a_stopped_run_goes_on_in_its_folder(tmp_path, monkeypatch):
    (run,) = runs(tmp_path)[:1]
    monkeypatch.setattr("benchmarks.learning.runs._finish", lambda module, run: "stopped")
    with pytest.raises(SystemExit):
        finish_all(MODULE, [run])
    (run.folder / "checkpoint").touch()
    with pytest.raises(SystemExit):
        finish_all(MODULE, [run])
    assert (run.folder / "checkpoint").exists()


def test_a_failed_run_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(SystemExit, match="no rate"):
        finish_all(MODULE, [Run(tmp_path / "one", {"name": "fails"})])
