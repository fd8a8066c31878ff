"""The page is written beside the training, not too often, and at the end; failures are logged."""

from __future__ import annotations

import threading
from contextlib import closing
from queue import Queue

import pytest

from reserve.report import live
from reserve.report.live import LiveReport


class Pages:
    """Takes the place of `write_report`: a page is written when the test lets it."""

    def __init__(self) -> None:
        self.begun: Queue[str] = Queue()
        self.may_end = threading.Semaphore(0)

    def __call__(self, run) -> None:
        self.begun.put(threading.current_thread().name)
        self.may_end.acquire()


@pytest.fixture
def pages(monkeypatch, tmp_path) -> Pages:
    (tmp_path / "metrics.jsonl").touch()
    made = Pages()
    monkeypatch.setattr(live, "write_report", made)
    return made


def test_a_thread_writes_it_and_calls_meanwhile_are_one_more_page(tmp_path, pages, monkeypatch):
    monkeypatch.setattr(live, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(live, "LEAST_PAUSE", 0)
    with closing(LiveReport(tmp_path)) as report:
        report(tmp_path)
        assert pages.begun.get() == "report"
        for _ in range(3):
            report(tmp_path)
        pages.may_end.release()
        assert pages.begun.get() == "report"
        for _ in range(2):
            pages.may_end.release()
    assert pages.begun.get() == threading.current_thread().name
    assert pages.begun.empty()


@pytest.mark.parametrize(("between", "pause"), [(1e6, 0), (0.0, 1e12)])
def test_the_next_page_waits_and_the_end_does_not(tmp_path, pages, monkeypatch, between, pause):
    monkeypatch.setattr(live, "SECONDS_BETWEEN", between)
    monkeypatch.setattr(live, "LEAST_PAUSE", pause)
    waited = Queue[float]()

    class Ended(threading.Event):
        """Notes how long the thread means to wait, and lets the test go on then."""

        def wait(self, timeout=None):
            waited.put(timeout)
            return super().wait(timeout)

    report = LiveReport(tmp_path)
    report._ended = Ended()
    report(tmp_path)
    assert waited.get() == 0.0
    assert pages.begun.get() == "report"
    report(tmp_path)
    pages.may_end.release()
    assert waited.get() > 1000
    pages.may_end.release()
    report.close()
    assert pages.begun.get() == threading.current_thread().name
    assert pages.begun.empty()


def test_a_later_call_is_answered_by_a_new_thread(tmp_path, pages, monkeypatch):
    monkeypatch.setattr(live, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(live, "LEAST_PAUSE", 0)
    for _ in range(3):
        pages.may_end.release()
    with closing(LiveReport(tmp_path)) as report:
        report(tmp_path)
        assert pages.begun.get() == "report"
        first = report._thread
        if first is not None:
            first.join()
        report(tmp_path)
        assert pages.begun.get() == "report"


def test_other_ranks_write_nothing(tmp_path, pages):
    with closing(LiveReport(tmp_path, writes=False)) as report:
        report(tmp_path)
    assert pages.begun.empty()


def test_a_run_without_metrics_gets_no_last_page(tmp_path, pages):
    (tmp_path / "metrics.jsonl").unlink()
    LiveReport(tmp_path).close()
    assert pages.begun.empty()


def test_a_page_that_cannot_be_written_is_logged(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").touch()
    LiveReport(tmp_path).close()
    assert "the run's report.html could not be written: " in caplog.text
    assert "is not a run's folder" in caplog.text
