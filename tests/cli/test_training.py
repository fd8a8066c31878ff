"""What the commands that train have in common: the last page is written whatever signals come meanwhile."""

from __future__ import annotations

import signal

import pytest

from reserve.cli.training import fit_with_report
from reserve.errors import Stopped


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_repeated_signal_does_not_change_how_a_stopped_run_ends(tmp_path, monkeypatch, name):
    number, written = signal.Signals[name], []

    def fit(task, run, config, *, on_saved):
        raise Stopped("SIGTERM", None)

    def write(run):
        signal.raise_signal(number)
        written.append(run)

    monkeypatch.setattr("reserve.train.fit.fit", fit)
    monkeypatch.setattr("reserve.report.live.write_report", write)
    (tmp_path / "metrics.jsonl").touch()
    before = signal.getsignal(number)
    with pytest.raises(Stopped):
        fit_with_report(None, tmp_path, None)
    assert written == [tmp_path]
    assert signal.getsignal(number) == before
