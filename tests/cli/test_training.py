"""Training commands keep the run's page up to date."""

from __future__ import annotations

import json

import pytest

from reserve.cli.training import fit_with_report, is_first_rank
from reserve.tasks import TASKS
from reserve.train.run_state import read_state
from tests.helpers.classifier_task import Classify
from tests.train.test_second_task import MODEL, StopsAt, config


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(TASKS, "classify", "tests.helpers.classifier_task:Classify")


def test_a_run_ends_with_the_page_of_its_last_state(tmp_path):
    checkpoint = fit_with_report(Classify(MODEL), tmp_path, config(3))
    assert checkpoint.name == "step_00000003"
    assert "<b>finished</b> at step 3 of 3" in " ".join((tmp_path / "report.html").read_text().split())


def test_a_run_that_is_stopped_says_so(tmp_path):
    fit_with_report(StopsAt(MODEL, 2), tmp_path, config(9))
    assert read_state(tmp_path) == ("stopped", "")
    assert "<b>stopped</b> at step 2 of 9" in " ".join((tmp_path / "report.html").read_text().split())


class Fails(StopsAt):
    def loss(self, model, batch, group):
        if len(self.seen) == 2:
            raise RuntimeError("no memory")
        return super().loss(model, batch, group)


def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="no memory"):
        fit_with_report(Fails(MODEL), tmp_path, config(9))
    assert json.loads((tmp_path / "state.json").read_text()) == {"state": "failed", "reason": "RuntimeError: no memory"}
    assert "RuntimeError: no memory" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("rank", "first"), [(None, True), ("0", True), ("1", False)])
def test_the_first_rank_is_torchruns(monkeypatch, rank, first):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_first_rank() == first
