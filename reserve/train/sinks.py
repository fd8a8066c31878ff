"""Where a run's metrics go: JSON lines and TensorBoard files, and what happens when one cannot be written."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, Protocol

from reserve.fs import write_text_atomic
from reserve.terminal import printable

logger = logging.getLogger(__name__)

P = ParamSpec("P")

MOST_KEPT = 16 << 20
"""Bytes that wait for a file that cannot be written at the moment: weeks of metrics."""


class Sink(Protocol):
    """Takes the metrics of one step after another."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes what was measured at `step`. May raise anything; the run goes on."""
        ...

    def close(self, *, failed: bool) -> None:
        """Ends the writing; `failed` says whether an error ends the run."""
        ...


class Sinks:
    """Several sinks that cannot end a run: what one raises is counted, and logged once a message."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.failed_writes = 0
        self._sinks = tuple(sinks)
        self._warned: set[tuple[str, str]] = set()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for sink in self._sinks:
            self._attempt(sink, sink.write, step, values)

    def close(self, *, failed: bool = False) -> None:
        for sink in self._sinks:
            self._attempt(sink, sink.close, failed=failed)

    def _attempt(self, sink: Sink, call: Callable[P, None], *args: P.args, **named: P.kwargs) -> None:
        try:
            call(*args, **named)
        except Exception as error:
            self.failed_writes += 1
            message = type(sink).__name__, f"{error}"
            if message not in self._warned:
                self._warned.add(message)
                reason = printable(f"{error}") or type(error).__name__
                logger.warning("metrics could not be written (%s): %s; the run goes on", message[0], reason)


class AppendedFile:
    """A file that grows by whole records, opened with the first.

    A record that cannot be written, as on a full disk, raises OSError naming the file. It is kept and written before
    the next one, in place of the part that was. The oldest are dropped beyond MOST_KEPT bytes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._size: int | None = None
        self._unwritten: deque[bytes] = deque()
        self._kept = 0

    def add(self, record: bytes) -> None:
        """Keeps a record, to be written with the next `flush`."""
        self._unwritten.append(record)
        self._kept += len(record)
        while self._kept > MOST_KEPT and len(self._unwritten) > 1:
            self._kept -= len(self._unwritten.popleft())

    def flush(self) -> None:
        """Writes what is kept."""
        if not self._unwritten:
            return
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)
            end = self._file.seek(0, os.SEEK_END)
            if self._size is None:
                self._size = end
            elif end > self._size:  # a part of a record, which a write that failed left
                self._file.truncate(self._size)
            data = memoryview(b"".join(self._unwritten))
            start = min(end, self._size)
            done = 0
            while done < len(data):
                done += self._file.write(data[done:]) or 0
        except OSError as error:
            self._abandon()
            if error.errno is not None and error.filename is None:
                error.filename = str(self._path)
            raise
        self._size = start + len(data)
        self._unwritten.clear()
        self._kept = 0

    def close(self) -> None:
        """Writes what is kept and closes the file."""
        try:
            self.flush()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Closes the file; the next write opens it again, as a network mount that came back needs."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()


class JsonLines:
    """A file of JSON objects, one a line, each with its "step".

    Lines after `first_step`, left by an interrupted run, are dropped first, so that each step is there once.
    """

    def __init__(self, path: Path, *, first_step: int) -> None:
        drop_after(path, first_step)
        self._file = AppendedFile(path)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._file.add(json_line({"step": step, **values}).encode())
        self._file.flush()

    def close(self, *, failed: bool) -> None:
        self._file.close()


class TensorBoard:
    """A file of TensorBoard's, new for each start of a run, without the steps after `first_step` of the files before.

    TensorBoard reads a folder's files in the order of their names, which begin with a time. The new file's name is
    after all others, also where the clock was set back or the last start was in the same second. A point is in the file
    when `write` returns; PyTorch's SummaryWriter would raise a full disk later, from a thread.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # The host and the process as in TensorBoard's own names: some tools look for them.
        name = f"events.out.tfevents.{_next_time(folder):010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = AppendedFile(folder / name)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=time.time(), step=first_step + 1, session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=points)))
        self._file.flush()

    def close(self, *, failed: bool) -> None:
        self._file.close()

    def _add(self, event: object) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())  # type: ignore[attr-defined]
        self._file.add(record.getvalue())


def _next_time(folder: Path) -> int:
    """The present second since 1970, or one after that of the folder's last file of TensorBoard's."""
    found = [re.search(r"tfevents\.(\d+)", path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return max([int(time.time()), *(int(match[1]) + 1 for match in found if match)])


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl, null as NaN; damaged ones, such as one cut short by a crash, are left out."""
    lines = map(_numbers, path.read_text("utf-8", errors="replace").splitlines())
    return [line for line in lines if line is not None]


def _numbers(text: str) -> dict[str, float] | None:
    """A line of metrics.jsonl, or None where it is damaged."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int:
        return None
    values = {name: math.nan if value is None else value for name, value in line.items()}
    known = all(
        isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63) for value in values.values()
    )
    return values if known else None


def json_line(values: Mapping[str, float]) -> str:
    """A line of metrics.jsonl. Strict JSON has no NaN, and a run that diverged must not make its log unreadable."""
    # Nine digits tell every float32 from every other, so equal lines are equal losses.
    rounded = {k: (v if k == "step" else float(f"{v:.9g}")) if math.isfinite(v) else None for k, v in values.items()}
    return json.dumps(rounded, allow_nan=False) + "\n"


def drop_after(path: Path, step: int) -> None:
    """Drops the lines after `step`, and what is left of a line cut short."""
    if not path.exists():
        return
    lines = path.read_text("utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in map(_numbers, lines) if line is not None and line["step"] <= step]
    # Not without need: the disk may be full.
    if len(kept) < len(lines) or (lines and not lines[-1].endswith("\n")):
        write_text_atomic(path, "".join(map(json_line, kept)))
