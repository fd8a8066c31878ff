"""The page is written beside the training, not too often, and at the end; failures are logged."""

from __future__ import annotations

import threading

import pytest

from reserve.report import live
from reserve.report.live import SECONDS_BETWEEN, LiveReport


@pytest.fixture
def written(monkeypatch, tmp_path) -> list[str]:
    """The threads that wrote a page."""
    (tmp_path / "metrics.jsonl").touch()
    pages: list[str] = []
    monkeypatch.setattr(live, "write_report", lambda run: pages.append(threading.current_thread().name))
    return pages


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


def test_a_thread_writes_it_at_most_every_two_minutes_and_the_end_writes_the_last(tmp_path, written, clock):
    with LiveReport(tmp_path) as report:
        for seconds in (0.0, 1.0, SECONDS_BETWEEN - 1, SECONDS_BETWEEN):
            clock[0] = seconds
            report(tmp_path)
            if report._thread is not None:
                report._thread.join()
    assert written == ["report", "report", threading.current_thread().name]


def test_a_page_is_not_begun_while_another_is_written(tmp_path, monkeypatch, clock):
    may_end, pages = threading.Event(), []
    (tmp_path / "metrics.jsonl").touch()
    monkeypatch.setattr(live, "write_report", lambda run: (pages.append(run), may_end.wait()))
    with LiveReport(tmp_path) as report:
        report(tmp_path)
        clock[0] = 10 * SECONDS_BETWEEN
        report(tmp_path)
        assert sum(thread.name == "report" for thread in threading.enumerate()) == 1
        may_end.set()
    assert len(pages) == 2


def test_other_ranks_write_nothing(tmp_path, written):
    with LiveReport(tmp_path, writes=False) as report:
        report(tmp_path)
    assert written == []


def test_a_run_without_metrics_gets_no_last_page(tmp_path, written):
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(KeyError), LiveReport(tmp_path):
        raise KeyError
    assert written == []


def test_a_page_that_cannot_be_written_is_logged(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").touch()
    with LiveReport(tmp_path) as report:
        report(tmp_path)
    assert caplog.text.count("report.html could not be written") == 2
    assert "is not a run's folder" in caplog.text
