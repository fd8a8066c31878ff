"""Sinks: files that a full disk leaves whole, TensorBoard's order of files, and failures that end nothing."""

from __future__ import annotations

import errno
import io
import json
import logging
from pathlib import Path

import pytest

from reserve.train import sinks
from reserve.train.sinks import AppendedFile, JsonLines, Sinks, TensorBoard, read_metrics


class FullDisk(io.FileIO):
    """Takes half of what is written, then has no space left."""

    def write(self, data):
        super().write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(monkeypatch):
    """A disk that is full while `disk["full"]`."""
    state, original = {"full": False}, Path.open

    def opened(path, mode="r", *arguments, **named):
        if state["full"] and mode == "ab":
            return FullDisk(path, "ab")
        return original(path, mode, *arguments, **named)

    monkeypatch.setattr(Path, "open", opened)
    return state


def failing(sink, step: int, values: dict[str, float]) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        sink.write(step, values)


def shown(folder: Path, name: str = "loss") -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in board.Scalars(name)]


def test_lines_of_a_full_disk_are_written_when_there_is_space(tmp_path, disk):
    path = tmp_path / "metrics.jsonl"
    sink = JsonLines(path, first_step=0)
    disk["full"] = True
    failing(sink, 1, {"loss": 1.0})
    failing(sink, 2, {"loss": 2.0})
    disk["full"] = False
    sink.write(3, {"loss": 3.0})
    sink.close(failed=False)
    assert path.read_text().splitlines() == [f'{{"step": {step}, "loss": {step}.0}}' for step in (1, 2, 3)]


def test_a_disk_that_fills_up_later_leaves_the_lines_before_whole(tmp_path, disk):
    path = tmp_path / "metrics.jsonl"
    first = JsonLines(path, first_step=0)
    first.write(1, {"loss": 1.0})
    first.close(failed=False)
    disk["full"] = True
    second = JsonLines(path, first_step=1)
    failing(second, 2, {"loss": 2.0})
    assert [line["step"] for line in read_metrics(path)] == [1]
    disk["full"] = False
    second.close(failed=True)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_an_error_names_the_file(tmp_path, disk):
    disk["full"] = True
    sink = JsonLines(tmp_path / "metrics.jsonl", first_step=0)
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        sink.write(1, {})


def test_what_waits_for_the_disk_is_bounded(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(sinks, "MOST_KEPT", 10)
    file = AppendedFile(tmp_path / "file")
    for record in (b"1111", b"2222", b"3333"):
        file.add(record)
    file.close()
    assert (tmp_path / "file").read_bytes() == b"22223333"


def test_a_full_disk_leaves_tensorboard_readable(tmp_path, disk):
    sink = TensorBoard(tmp_path, first_step=0)
    sink.write(1, {"loss": 1.0})
    disk["full"] = True
    sink._file._abandon()  # the file is open: the disk of this test fills up when it is opened again
    failing(sink, 2, {"loss": 2.0})
    disk["full"] = False
    sink.write(3, {"loss": 3.0})
    sink.close(failed=False)
    assert shown(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_point_is_on_the_disk_when_it_is_written(tmp_path):
    TensorBoard(tmp_path, first_step=0).write(7, {"loss": 0.5, "heldout/recall": 0.25})
    assert shown(tmp_path) == [(7, 0.5)]
    assert shown(tmp_path, "heldout/recall") == [(7, 0.25)]


@pytest.mark.parametrize("clock", [1_000_000, 2_000_000_000], ids=["set back", "the same second"])
def test_the_file_of_a_resumed_run_is_read_last(tmp_path, monkeypatch, clock):
    """Else TensorBoard shows the steps after the checkpoint, which the resumed run has dropped."""
    monkeypatch.setattr(sinks.time, "time", lambda: 2_000_000_000)
    monkeypatch.setattr(sinks.os, "getpid", lambda: 999)
    first = TensorBoard(tmp_path, first_step=0)
    for step in range(1, 5):
        first.write(step, {"loss": 1.0})
    monkeypatch.setattr(sinks.time, "time", lambda: clock)
    monkeypatch.setattr(sinks.os, "getpid", lambda: 11)
    TensorBoard(tmp_path, first_step=2).write(3, {"loss": 2.0})
    assert shown(tmp_path) == [(1, 1.0), (2, 1.0), (3, 2.0)]


class Broken:
    """A sink whose network is down."""

    def __init__(self) -> None:
        self.messages = iter(["no route", "no route", "no key", ""])

    def write(self, step, values):
        raise ConnectionError(next(self.messages))

    def close(self, *, failed):
        raise ConnectionError("still no route")


class Kept:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.failed: bool | None = None

    def write(self, step, values):
        self.steps.append(step)

    def close(self, *, failed):
        self.failed = failed


def test_a_sink_that_fails_ends_nothing_and_is_logged_once_a_message(caplog):
    caplog.set_level(logging.WARNING)
    kept = Kept()
    group = Sinks([Broken(), kept])
    for step in range(1, 5):
        group.write(step, {})
    assert group.failed_writes == 4
    assert kept.steps == [1, 2, 3, 4]
    assert [record.getMessage() for record in caplog.records] == [
        "metrics could not be written (Broken): no route; the run goes on",
        "metrics could not be written (Broken): no key; the run goes on",
        "metrics could not be written (Broken): ConnectionError; the run goes on",
    ]
    group.close(failed=True)
    assert kept.failed is True
