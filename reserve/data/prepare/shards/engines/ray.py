"""Prepares shards on a Ray cluster, one task a shard. Ray reruns the tasks of a machine that dies."""

from __future__ import annotations

import math
import os
import platform
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from reserve.data.prepare.shards.build import is_done
from reserve.data.prepare.shards.engines.local import build_shards
from reserve.data.prepare.shards.events import Event, Report
from reserve.data.prepare.shards.plan import ShardPlan
from reserve.data.prepare.workers import WorkerEnded
from reserve.data.shards.layout import SETTINGS
from reserve.data.shards.records import read_settings
from reserve.errors import BadInput, EnvironmentFailure

_RETRIES = 20
"""How often the task of a shard may die with its machine."""
_OBJECT_STORE_BYTES = 80 * 2**20
"""Smallest that Ray takes. Tasks exchange names and counts; videos and shards are files."""
_POLL_SECONDS = 0.5
_CONNECT_SECONDS = 20


@contextmanager
def ray_engine(address: str | None, workers: int | None) -> Iterator[RayEngine]:
    """Connects to the cluster at `address`, or starts one on this machine for the block.

    `workers` bounds the tasks in flight, by default two a core so that no core idles between tasks. For a cluster that
    is started here it is the number of cores to use. Raises ModuleNotFoundError naming the extra, and
    EnvironmentFailure if there is no cluster at `address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send them to its makers.
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the engine ray needs Ray: pip install 'merlot-reserve[ray]'", name=error.name
        ) from error
    if ray.is_initialized():
        yield RayEngine(workers)
        return
    options: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False, "logging_level": "error"}
    if address is None:
        options |= {"num_cpus": workers or os.cpu_count(), "object_store_memory": _OBJECT_STORE_BYTES}
        workers = None
    else:
        del options["include_dashboard"]
    try:
        _check_reachable(address or "")
        with _kept_handler():
            ray.init(address or "local", **options)
    except (OSError, ValueError, RuntimeError) as error:
        where = f"at {address}" if address else "on this machine"
        raise EnvironmentFailure(f"no Ray cluster {where}: {error}") from error
    try:
        yield RayEngine(workers)
    finally:
        ray.shutdown()


@contextmanager
def _kept_handler() -> Iterator[None]:
    """Restores the handler of SIGTERM, and calls it where Ray's has ended the block: that exits with status 15 or 1."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        if callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        # Handlers can be set in the main thread only. None is one that Python did not set.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_reachable(address: str) -> None:
    """Raises OSError if nothing listens at a host:port, to which Ray would try to connect for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Keeps at most `workers` tasks in flight (None: twice the cores of the cluster), each of a shard on one core."""

    workers: int | None = None

    def build(self, plan: ShardPlan, numbers: Iterable[int], report: Report) -> list[int]:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mailbox: Any = ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        task = ray.remote(_build_shard).options(
            num_cpus=1, max_retries=_RETRIES, retry_exceptions=[WorkerEnded], scheduling_strategy="SPREAD"
        )
        left = iter(numbers)
        running: dict[Any, int] = {}
        busy: list[int] = []
        try:
            while True:
                for number in self._next(plan, left, report, self._room(len(running))):
                    running[task.remote(plan.only(number), number, mailbox)] = number
                if not running:
                    return busy
                ready, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
                outcomes = [(running.pop(ref), ref) for ref in ready]
                for event in ray.get(mailbox.take.remote()):
                    report(event)
                busy += [number for number, ref in outcomes if not _result(number, ref)]
        finally:
            for ref in running:
                ray.cancel(ref, force=True)
            ray.kill(mailbox)

    def _room(self, running: int) -> int:
        import ray

        # Asked each time: a cluster grows and shrinks.
        most = self.workers or math.ceil(2 * ray.cluster_resources().get("CPU", 1))
        return max(most - running, 0)

    @staticmethod
    def _next(plan: ShardPlan, left: Iterator[int], report: Report, count: int) -> Iterator[int]:
        """The next `count` shards that are not finished."""
        while count and (number := next(left, None)) is not None:
            if is_done(plan, number):
                report(Event(number, "written", kept=len(plan.sources.get(number, ()))))
            else:
                count -= 1
                yield number


class _Mailbox:
    """An actor beside the driver that keeps events until the driver takes them."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def add(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def _build_shard(plan: ShardPlan, number: int, mailbox: Any) -> bool:
    """The Ray task. Decodes in a child process, so that a hostile video kills only that. Returns False if another
    process works on the shard."""
    import ray

    _check_sight(plan)
    sent: list[Any] = []

    def report(event: Event) -> None:
        sent[:] = [mailbox.add.remote(event)]

    try:
        return not build_shards(plan, [number], report, workers=1)
    except OSError as error:
        raise EnvironmentFailure(str(error)) from error
    finally:
        ray.get(sent)  # The driver sees all events before the result.


def _check_sight(plan: ShardPlan) -> None:
    """Raises EnvironmentFailure if this machine does not see the files that the driver does."""
    path = plan.out / SETTINGS
    folders = {source.path.parent for sources in plan.sources.values() for source in sources}
    try:
        unseen = [] if read_settings(path.read_bytes()) == plan.settings else [path]
    except (OSError, BadInput):
        unseen = [path]
    unseen += sorted(folder for folder in folders if not folder.exists())
    if unseen:
        raise EnvironmentFailure(
            f"machine {platform.node()} of the Ray cluster does not see {unseen[0]}: SOURCE and OUT must be on a file "
            "system that all its machines share, at the same path"
        )


def _result(number: int, ref: Any) -> bool:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return bool(ray.get(ref))
    except RayTaskError as error:
        if isinstance(error.cause, EnvironmentFailure | BadInput):
            raise error.cause from None
        raise RuntimeError(f"shard {number} failed in its Ray task: {error.cause!r}") from error
    except RayError as error:
        raise EnvironmentFailure(f"Ray could not prepare shard {number}: {error}") from error
