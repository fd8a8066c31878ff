"""Batches of a data set, in an order that depends on nothing but the seed and can be resumed anywhere."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from reserve.data.ahead import work_ahead
from reserve.data.order import ExampleStream, SetShare
from reserve.errors import BadInput, DamagedSample, EnvironmentFailure

logger = logging.getLogger(__name__)

MOST_DAMAGED = 20
"""Damaged samples in place of one example after which loading fails."""

Example = TypeVar("Example")
Example_co = TypeVar("Example_co", covariant=True)
Batch = TypeVar("Batch")


class TrainingSet(Protocol[Example_co]):
    """`len` examples, each asked for as (epoch, index): the same key gives the same example in any process.

    Raises DamagedSample for an example that cannot be used where others can.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int], /) -> Example_co: ...


@runtime_checkable
class Mixture(Protocol):
    """A training set that mixes several sets, whose examples it numbers one set after the other."""

    @property
    def shares(self) -> Sequence[SetShare]: ...


def shares_of(dataset: TrainingSet[Any]) -> Sequence[SetShare]:
    """The sets that a training set mixes; one, unless it is a Mixture."""
    return dataset.shares if isinstance(dataset, Mixture) else [SetShare("the data set", len(dataset))]


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (epoch, index) for one of `world_size` ranks.

    `sets` are the sets to mix, or the number of examples of a single one. Positions in their `ExampleStream` count the
    examples since the start of training. Each step takes the next batch_size · world_size positions from `place` on, so
    batches straddle epochs and every example comes once an epoch of its set, whatever the batch sizes before. A rank
    yields its share of a step in `accumulate` parts of equal size: part p of rank r has the p · world_size + r-th part
    of the step's positions.

    Any `place` costs the same to start at: the order of an epoch, 8 bytes an example, is computed at the start and at
    each new epoch. Raises ValueError naming a set that is too small for the batches.
    """

    def __init__(
        self,
        sets: int | Sequence[SetShare],
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
        self.stream = ExampleStream([SetShare("the data set", sets)] if isinstance(sets, int) else sets, seed)
        if len(self.stream) < batch_size * world_size:
            raise ValueError(
                f"train.batch_size {batch_size} on {world_size} device(s) needs {batch_size * world_size} examples; "
                f"the data set has {len(self.stream)}"
            )
        self.stream.check_batch(batch_size * world_size)
        self.batch_size = batch_size
        self.rank, self.world_size, self.accumulate, self.place = rank, world_size, accumulate, place

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self.batch_size // self.accumulate
        for place in itertools.count(self.place, self.batch_size * self.world_size):
            for part in range(self.accumulate):
                yield self.stream.keys(place + (part * self.world_size + self.rank) * size, size)


class InOrder(Sampler[list[tuple[int, int]]]):
    """Every example once, in order, as batches of (0, index): for evaluation."""

    def __init__(self, num_examples: int, batch_size: int) -> None:
        self.num_examples, self.batch_size = num_examples, batch_size

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for first in range(0, self.num_examples, self.batch_size):
            yield [(0, index) for index in range(first, min(first + self.batch_size, self.num_examples))]


class DamageLog:
    """Logs damaged samples, each once, and counts how often one was skipped."""

    def __init__(self) -> None:
        self.count = 0
        self._logged: set[str] = set()

    def add(self, messages: Iterable[str]) -> None:
        for message in messages:
            self.count += 1
            if message not in self._logged:
                self._logged.add(message)
                logger.warning("a damaged sample is skipped: %s", message)


def load_batches(
    dataset: TrainingSet[Example],
    sampler: Iterable[list[tuple[int, int]]],
    collate: Callable[[Sequence[Example]], Batch],
    *,
    num_workers: int,
    pin_memory: bool = False,
    damage: DamageLog | None = None,
    finish: Callable[[Any], Any] | None = None,
) -> Iterator[Batch]:
    """Loads the sampler's batches, in `num_workers` processes (0: in this one).

    With worker processes, `dataset` and `collate` must be picklable. `finish`, if given, completes what `collate`
    returns, in a thread of this process that is a batch ahead.

    Raises the data set's BadInput, EnvironmentFailure and OSError as they are, but for DamagedSample: another example
    of its set, drawn from its key, takes its place. Those skipped for a batch are added to `damage` when the batch is
    yielded. Raises BadInput after MOST_DAMAGED of them in place of one example.
    """
    damage = damage or DamageLog()
    loader: DataLoader[Any] = DataLoader(
        _SkipDamage(dataset, [share.examples for share in shares_of(dataset)]),  # type: ignore[arg-type]  # the loader needs no more of Dataset than the protocol
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
        with closing(_finished(batches, finish)) as loaded:
            for batch in loaded:
                if isinstance(batch, _FAILURES):
                    raise batch
                damage.add(batch.skipped)
                yield batch.value
    finally:
        # A traceback that keeps the loader alive leaves its workers to the garbage collector, which takes 5 s for them.
        del loader, batches


def _finished(batches: Iterator[Any], finish: Callable[[Any], Any] | None) -> Generator[Any, None, None]:
    if finish is None:
        yield from batches
        return

    def complete(batch: Any) -> Any:
        return batch if isinstance(batch, _FAILURES) else batch._replace(value=finish(batch.value))

    yield from work_ahead(batches, complete)


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


class _Loaded(NamedTuple):
    """An example or a batch, and the messages of the damaged samples that were skipped for it.

    A tuple, since torch pins the memory of what is in tuples.
    """

    value: Any
    skipped: Sequence[str]


@dataclass(frozen=True)
class _SkipDamage(Generic[Example]):
    """Replaces damaged examples by others of the same set; `sizes` are the numbers of examples of the sets.

    Returns other failures instead of raising them: torch wraps what a worker raises in the text of a traceback.
    """

    dataset: TrainingSet[Example]
    sizes: Sequence[int]

    def __getitem__(self, key: tuple[int, int]) -> _Loaded | Failure:
        epoch, index = key
        skipped: list[str] = []
        others = self._others(epoch, index)
        while len(skipped) < MOST_DAMAGED:
            try:
                return _Loaded(self.dataset[epoch, index], skipped)
            except DamagedSample as error:
                skipped.append(str(error))
                index = next(others)
            except _FAILURES as error:
                return error
        return BadInput(f"{len(skipped)} samples in a row, drawn at random, are damaged; the last: {skipped[-1]}")

    def _others(self, epoch: int, index: int) -> Iterator[int]:
        """Examples of the same set, drawn from the key of one. Damage often comes in a row, so not its neighbours."""
        stops = np.cumsum(self.sizes)
        number = int(np.searchsorted(stops, index, side="right"))
        rng = np.random.default_rng([epoch, index])
        while True:
            yield int(stops[number]) - 1 - int(rng.integers(self.sizes[number]))


@dataclass(frozen=True)
class _CollateGood(Generic[Example, Batch]):
    """Collates examples, or passes on the first failure among them."""

    collate: Callable[[Sequence[Example]], Batch]

    def __call__(self, examples: Sequence[_Loaded | Failure]) -> _Loaded | Failure:
        good: list[Example] = []
        skipped: list[str] = []
        for example in examples:
            if isinstance(example, _FAILURES):
                return example
            good.append(example.value)
            skipped += example.skipped
        return _Loaded(self.collate(good), skipped)


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
