"""state.json: what became of a run's last start."""

from __future__ import annotations

import pytest

from reserve.errors import BadInput
from reserve.train.run_state import STATE_NAME, RunState, read_state


def test_it_is_running_and_then_finished(tmp_path):
    with RunState(tmp_path, writes=True):
        assert read_state(tmp_path) == ("running", "")
    assert read_state(tmp_path) == ("finished", "")


def test_it_is_what_it_was_said_to_be(tmp_path):
    with RunState(tmp_path, writes=True) as state:
        state.end("stopped")
    assert read_state(tmp_path) == ("stopped", "")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(BadInput("no\x1b[31m videos"), "BadInput: no\\x1b[31m videos"), (KeyboardInterrupt(), "KeyboardInterrupt")],
)
def test_an_error_is_the_reason_and_goes_on(tmp_path, error, reason):
    with pytest.raises(type(error)), RunState(tmp_path, writes=True):
        raise error
    assert read_state(tmp_path) == ("failed", reason)


def test_only_the_rank_that_writes_does(tmp_path):
    with RunState(tmp_path, writes=False):
        pass
    assert read_state(tmp_path) == ("", "")


def test_a_full_disk_is_logged_and_ends_nothing(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("reserve.train.run_state.write_text_atomic", full)
    with RunState(tmp_path, writes=True):
        pass
    assert "the run's state could not be written: No space left on device" in caplog.text


@pytest.mark.parametrize("text", ["", "[]", '{"state": 1, "reason": ""}', '{"state": "running"}', "[" * 100_000])
def test_a_damaged_file_says_nothing(tmp_path, text):
    (tmp_path / STATE_NAME).write_text(text)
    assert read_state(tmp_path) == ("", "")
