"""A profile of a few steps: its files, and that it cannot end the run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from reserve.config import TrainConfig
from reserve.errors import Stopped
from reserve.model.run_checkpoints import list_checkpoints
from reserve.tasks import TASKS
from reserve.train import profiling
from reserve.train.distributed import Ranks
from reserve.train.fit import fit
from reserve.train.profiling import StepProfiler
from tests.helpers.classifier_task import Classify
from tests.train.test_second_task import MODEL, StopsAt, config

SECOND = Ranks(1, 2, torch.device("cpu"))


def profile(run: Path, window: str, steps: range) -> None:
    """Multiplies matrices in `steps`, one in each of them."""
    with StepProfiler(run, TrainConfig(profile_steps=window), SECOND) as profiler:
        for step in steps:
            profiler.before(step)
            torch.ones(4, 4) @ torch.ones(4, 4)
            profiler.after(step + 1)


def products(trace: Path) -> int:
    with gzip.open(trace, "rt") as file:
        return sum(event.get("name") == "aten::matmul" for event in json.load(file)["traceEvents"])


@pytest.mark.parametrize(
    ("window", "steps", "first", "profiled"),
    [
        ("2:5", range(8), 2, 3),
        ("2:5", range(3, 8), 3, 2),  # resumed inside the window
        ("2:5", range(4), 2, 2),  # stopped inside it
    ],
)
def test_the_steps_of_the_window_are_in_the_trace_and_the_table(tmp_path, window, steps, first, profiled):
    profile(tmp_path, window, steps)
    name = f"step_{first:08d}-rank1"
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == [f"{name}.json.gz", f"{name}.txt"]
    assert products(tmp_path / "profile" / f"{name}.json.gz") == profiled
    assert "aten::matmul" in (tmp_path / "profile" / f"{name}.txt").read_text()


@pytest.mark.parametrize(("window", "steps"), [("", range(8)), ("2:5", range(5, 8)), ("6:8", range(6))])
def test_no_profiler_is_made_outside_the_window(tmp_path, monkeypatch, window, steps):
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: pytest.fail("profiled"))
    profile(tmp_path, window, steps)
    assert not (tmp_path / "profile").exists()


def test_a_profile_that_cannot_be_written_is_logged_and_leaves_nothing(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(profiling.shutil, "copyfileobj", full)
    profile(tmp_path, "2:5", range(8))
    assert "the profile of rank 1 failed: No space left on device; the run goes on" in caplog.text
    assert list((tmp_path / "profile").iterdir()) == []


def test_a_profiler_that_cannot_start_is_logged_once(tmp_path, monkeypatch, caplog):
    def broken(**_):
        raise RuntimeError("no CUPTI")

    monkeypatch.setattr(torch.profiler, "profile", broken)
    profile(tmp_path, "2:5", range(8))
    assert [record.getMessage() for record in caplog.records] == [
        "the profile of rank 1 failed: no CUPTI; the run goes on"
    ]


def test_a_run_profiles_its_steps_and_says_where(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(TASKS, "classify", "tests.helpers.classifier_task:Classify")
    caplog.set_level("INFO")
    fit(Classify(MODEL), tmp_path, config(3, profile_steps="1:2"))
    trace = tmp_path / "profile" / "step_00000001-rank0.json.gz"
    assert f"the profile from step 1 on is in {trace}" in caplog.text
    assert products(trace) > 0


def test_a_run_that_stops_in_the_window_has_its_profile(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "classify", "tests.helpers.classifier_task:Classify")
    with pytest.raises(Stopped):
        fit(StopsAt(MODEL, 2), tmp_path, config(9, profile_steps="1:5"))
    assert list_checkpoints(tmp_path)[-1].step == 2
    assert (tmp_path / "profile" / "step_00000001-rank0.txt").is_file()
