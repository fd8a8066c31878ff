"""Shows the progress of preparing shards: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reserve.data.prepare.shards.events import Event
from reserve.data.prepare.shards.outcomes import category
from reserve.data.shards.records import SkippedFile
from reserve.terminal import printable

_SECONDS_BETWEEN_LINES = 30.0


class _Counts:
    """How many videos of the shards are done. A shard's count starts again with each `started`: it was interrupted."""

    def __init__(self) -> None:
        self.done = 0
        self.prepared = 0
        self.skipped: Counter[str] = Counter()
        self.started = time.monotonic()
        self._by_shard: dict[int, int] = {}

    def add(self, event: Event) -> None:
        if event.kind in ("started", "written"):
            self._set(event.shard, event.kept)
        elif event.kind == "video":
            self._set(event.shard, self._by_shard.get(event.shard, 0) + 1)
            self.prepared += 1
            if isinstance(event.outcome, SkippedFile):
                self.skipped[category(event.outcome)] += 1

    def _set(self, shard: int, done: int) -> None:
        self.done += done - self._by_shard.get(shard, 0)
        self._by_shard[shard] = done

    def text(self, total: int) -> str:
        rate = self.prepared / max(time.monotonic() - self.started, 1e-9)
        parts = [f"{self.done} of {total} videos", f"{rate:.2f} videos/s"]
        if rate:
            parts.append(f"{_duration((total - self.done) / rate)} left")
        return ", ".join([*parts, *skipped_counts(self.skipped)])


@contextmanager
def shard_progress() -> Iterator[Callable[[Event, int], None]]:
    """Yields a function to call with each event and the number of videos. Prints to stderr, with a line for each
    skipped file and each warning."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    counts = _Counts()
    waiting: set[int] = set()
    last = time.monotonic()

    def line(text: str) -> None:
        console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    columns = (TextColumn("preparing shards"), BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)

        def show(event: Event, total: int) -> None:
            nonlocal last
            counts.add(event)
            if event.kind == "busy" and event.shard not in waiting:
                waiting.add(event.shard)
                line(f"shard {event.shard} is left to another process that works on it")
            if isinstance(event.outcome, SkippedFile):
                line(f"skipped {event.path}: {event.outcome.reason}")
            elif event.outcome is not None:
                for warning in event.outcome.warnings:
                    line(f"{event.path}: {warning}")
            text = counts.text(total)
            progress.update(bar, completed=counts.done, total=total, description=printable(text))
            if not console.is_terminal and time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                line(text)

        yield show


def skipped_counts(skipped: Counter[str]) -> list[str]:
    """How many files were skipped, and why."""
    if not skipped:
        return []
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
    return [f"{skipped.total()} skipped ({reasons})"]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
