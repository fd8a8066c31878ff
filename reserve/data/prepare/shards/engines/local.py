"""Prepares shards in processes of this machine. One pool serves them all, and a shard is written while others go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain

from reserve.data.decode import candidates
from reserve.data.prepare.jobs import Job
from reserve.data.prepare.running import GRACE_SECONDS, run_jobs
from reserve.data.prepare.shards.build import Busy, ShardBuild, is_done
from reserve.data.prepare.shards.events import Event, Report
from reserve.data.prepare.shards.outcomes import Outcome, judge_prepared, judge_stored, skipped_file
from reserve.data.prepare.shards.plan import Item, ShardPlan, source_path, video_id
from reserve.data.prepare.workers import Lost, run_items
from reserve.data.shards.records import ShardRecord

_WAITING_TO_BE_WRITTEN = 2
"""Shards whose stores wait on disk; more stop the preparation until one is written."""


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Prepares videos in `workers` processes (0: in this one)."""

    workers: int

    def build(self, plan: ShardPlan, numbers: Iterable[int], report: Report) -> list[int]:
        return build_shards(plan, numbers, report, workers=self.workers)


def build_shards(
    plan: ShardPlan,
    numbers: Iterable[int],
    report: Report,
    *,
    workers: int,
    duplicates: Mapping[str, str] | None = None,
) -> list[int]:
    """Prepares and writes shards, as Engine.build says. `duplicates` are as in ShardBuild."""
    return _LocalBuild(plan, report, duplicates).run(numbers, workers)


class _LocalBuild:
    def __init__(self, plan: ShardPlan, report: Report, duplicates: Mapping[str, str] | None) -> None:
        self._plan, self._report, self._duplicates = plan, report, duplicates
        self._open: dict[str, ShardBuild] = {}
        """By each video that is left to prepare."""
        self._writing: deque[tuple[ShardBuild, Future[ShardRecord]]] = deque()
        self._busy: list[int] = []
        self._writer = ThreadPoolExecutor(max_workers=1)

    def run(self, numbers: Iterable[int], workers: int) -> list[int]:
        try:
            with closing(_outcomes(self._plan, self._items(numbers), workers)) as outcomes:
                for item, outcome in outcomes:
                    build = self._open.pop(video_id(item))
                    build.add(outcome)
                    self._report(Event(build.number, "video", path=str(source_path(item)), outcome=outcome))
                    if build.is_complete:
                        self._write(build)
            self._wait(at_most=0)
            return self._busy
        finally:
            self._writer.shutdown(cancel_futures=True)
            for build in {id(build): build for build in self._open.values()}.values():
                build.release()
            for build, _ in self._writing:
                build.release()

    def _items(self, numbers: Iterable[int]) -> Iterator[Item]:
        """The videos to prepare, shard by shard. A shard is locked when its first video is asked for."""
        for number in numbers:
            if self._duplicates is None and is_done(self._plan, number):
                self._report(Event(number, "written", kept=len(self._plan.sources.get(number, ()))))
                continue
            self._wait(at_most=_WAITING_TO_BE_WRITTEN)
            try:
                build = ShardBuild(self._plan, number, self._duplicates)
            except Busy:
                self._busy.append(number)
                self._report(Event(number, "busy"))
                continue
            self._report(Event(number, "started", kept=build.kept))
            if build.is_complete:
                self._write(build)
                continue
            self._open |= {video_id(item): build for item in build.pending}
            yield from build.pending

    def _write(self, build: ShardBuild) -> None:
        self._writing.append((build, self._writer.submit(build.write)))
        self._wait(at_most=_WAITING_TO_BE_WRITTEN)

    def _wait(self, at_most: int) -> None:
        """Reports the shards that are written, once at most so many are not."""
        while self._writing and (len(self._writing) > at_most or self._writing[0][1].done()):
            build, written = self._writing[0]
            record = written.result()
            self._writing.popleft()
            self._report(Event(build.number, "written", kept=len(record.videos) + len(record.skipped)))


def _outcomes(plan: ShardPlan, items: Iterable[Item], workers: int) -> Generator[tuple[Item, Outcome], None, None]:
    """Yields every item with its outcome as it finishes."""
    if plan.from_stores:
        judge = partial(
            judge_stored, data=plan.preparation.data, filters=plan.filters, keep_sound=plan.preparation.keep_sound
        )
        timeout = plan.preparation.limits.max_decode_seconds + GRACE_SECONDS
        for item, outcome in run_items(judge, items, workers=workers, timeout=timeout):
            yield item, skipped_file(item, outcome.reason) if isinstance(outcome, Lost) else outcome
        return
    jobs = (item for item in items if isinstance(item, Job))
    if (first := next(jobs, None)) is None:
        return  # a finished set needs no decoder
    finish = partial(judge_prepared, filters=plan.filters)
    decoders = candidates(plan.settings.decoders[0])
    yield from run_jobs(chain([first], jobs), plan.preparation, decoders, finish, workers=workers, keep=True)
