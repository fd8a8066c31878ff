"""Batches of a data set, in an order that depends on nothing but the seed and can be resumed anywhere."""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler

from reserve.data.order import epoch_order
from reserve.errors import BadInput, EnvironmentFailure

Example = TypeVar("Example")
Example_co = TypeVar("Example_co", covariant=True)
Batch = TypeVar("Batch")


class TrainingSet(Protocol[Example_co]):
    """`len` examples, each asked for as (epoch, index): the same key gives the same example in any process."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int], /) -> Example_co: ...


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (epoch, index) for one of `world_size` ranks.

    Position g of the stream, counted in examples since the start of training, is example g % num_examples of the order
    of epoch g // num_examples (`epoch_order`). Each step takes the next batch_size · world_size positions from `place`
    on, so batches straddle epochs and every example comes once an epoch, whatever the batch sizes before. A rank yields
    its share of a step in `accumulate` parts of equal size: part p of rank r has the p · world_size + r-th part of the
    step's positions.

    Any `place` costs the same to start at: the order of an epoch, 8 bytes an example, is computed at the start and at
    each new epoch.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        place: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"train.batch_size must be at least 1; got {batch_size}")
        if accumulate < 1 or batch_size % accumulate:
            raise ValueError(f"train.accumulate must divide the {batch_size} examples of a device; got {accumulate}")
        if num_examples < batch_size * world_size:
            raise ValueError(
                f"train.batch_size {batch_size} on {world_size} device(s) needs {batch_size * world_size} examples; "
                f"the data set has {num_examples}"
            )
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.rank, self.world_size, self.accumulate, self.place = rank, world_size, accumulate, place
        self._ordered: tuple[int, npt.NDArray[np.int64]] | None = None

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self.batch_size // self.accumulate
        for place in itertools.count(self.place, self.batch_size * self.world_size):
            for part in range(self.accumulate):
                yield self._keys(place + (part * self.world_size + self.rank) * size, size)

    def _keys(self, start: int, count: int) -> list[tuple[int, int]]:
        """The examples at `count` positions of the stream."""
        keys: list[tuple[int, int]] = []
        while len(keys) < count:
            epoch, first = divmod(start + len(keys), self.num_examples)
            keys += [(epoch, int(index)) for index in self._order(epoch)[first : first + count - len(keys)]]
        return keys

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._ordered is None or self._ordered[0] != epoch:
            self._ordered = None  # frees its memory before the next order is made
            self._ordered = epoch, epoch_order(self.num_examples, self.seed, epoch)
        return self._ordered[1]


class InOrder(Sampler[list[tuple[int, int]]]):
    """Every example once, in order, as batches of (0, index): for evaluation."""

    def __init__(self, num_examples: int, batch_size: int) -> None:
        self.num_examples, self.batch_size = num_examples, batch_size

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for first in range(0, self.num_examples, self.batch_size):
            yield [(0, index) for index in range(first, min(first + self.batch_size, self.num_examples))]


def load_batches(
    dataset: TrainingSet[Example],
    sampler: BatchSampler | InOrder,
    collate: Callable[[Sequence[Example]], Batch],
    *,
    num_workers: int,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Loads the sampler's batches, in `num_workers` processes (0: in this one).

    With worker processes, `dataset` and `collate` must be picklable. Raises the data set's BadInput, EnvironmentFailure
    and OSError as they are.
    """
    loader: DataLoader[Any] = DataLoader(
        _CatchFailures(dataset),  # type: ignore[arg-type]  # the loader needs no more of Dataset than the protocol
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=_CollateGood(collate),
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        multiprocessing_context="spawn" if num_workers else None,
        worker_init_fn=_start_worker,
        # The workers' seeds would come from the default generator: a run resumed with dropout would draw other masks.
        generator=torch.Generator(),
    )
    batches: Iterator[Any] = iter(())
    try:
        with _noticing_dead_children():
            batches = iter(loader)
        for batch in batches:
            if isinstance(batch, _FAILURES):
                raise batch
            yield batch
    finally:
        # A traceback that keeps the loader alive leaves its workers to the garbage collector, which takes 5 s for them.
        del loader, batches


@contextmanager
def _noticing_dead_children() -> Iterator[None]:
    """Raises RuntimeError where a process dies while loading processes are started.

    Python sends each a pickle through a pipe, whose other end it holds open itself: after the death of the process it
    would wait for ever to send the rest. Signals reach the main thread only; elsewhere nothing is noticed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    starting, before = True, signal.getsignal(signal.SIGCHLD)

    def child_changed(number: int, frame: FrameType | None) -> None:
        dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) if starting else None
        if dead is not None and dead.si_code != os.CLD_EXITED:
            raise RuntimeError(f"a loading process died of signal {dead.si_status} while it started")
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGCHLD, child_changed)
    try:
        yield
    finally:
        starting = False
        # torch's loader may have set its own, which calls this one.
        if signal.getsignal(signal.SIGCHLD) is child_changed:
            signal.signal(signal.SIGCHLD, before)


Failure = BadInput | EnvironmentFailure | OSError
_FAILURES = (BadInput, EnvironmentFailure, OSError)
"""What is wrong with a file or with the machine; other errors are the program's, and keep their traceback."""


@dataclass(frozen=True)
class _CatchFailures(Generic[Example]):
    """Returns failures instead of raising them: torch wraps what a worker raises in the text of a traceback."""

    dataset: TrainingSet[Example]

    def __getitem__(self, key: tuple[int, int]) -> Example | Failure:
        try:
            return self.dataset[key]
        except _FAILURES as error:
            return error


@dataclass(frozen=True)
class _CollateGood(Generic[Example, Batch]):
    """Collates examples, or passes on the first failure among them."""

    collate: Callable[[Sequence[Example]], Batch]

    def __call__(self, examples: Sequence[Example | Failure]) -> Batch | Failure:
        good: list[Example] = []
        for example in examples:
            if isinstance(example, _FAILURES):
                return example
            good.append(example)
        return self.collate(good)


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches the whole process group, and job schedulers send SIGTERM to every process of a job. The trainer
    # decides when to stop, and needs its batches to finish the step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_on_sigterm_from, args=(os.getppid(),), daemon=True).start()
    # At the end of training a thread may still be sending a batch. Python would end that thread within C++ code, which
    # aborts the process.
    atexit.register(os._exit, 0)


def _exit_on_sigterm_from(trainer: int) -> None:
    """Ends the process at a SIGTERM from the trainer, which sends one at its exit, and from no other process."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(128 + signal.SIGTERM)
