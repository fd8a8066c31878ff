"""Batches of a data set, in an order that depends on nothing but the seed and can be resumed anywhere."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch.utils.data import Sampler

from reserve.data.completing import in_order
from reserve.data.loading_processes import DeathLog, InThisProcess, LoadingProcesses
from reserve.data.order import ExampleStream, SetShare
from reserve.errors import BadInput, DamagedSample, EnvironmentFailure

logger = logging.getLogger(__name__)

MOST_DAMAGED = 20
"""Damaged samples in place of one example after which loading fails."""

PREFETCHED = 2
"""Batches that each loading process is ahead: one that waits while the next is loaded. More would take memory, and help
only where loading is fast enough on average, yet now and then slower than a step for that long."""

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
    deaths: DeathLog | None = None,
    finish: Callable[[Any], Any] | None = None,
) -> Generator[Batch, None, None]:
    """Loads the sampler's batches with a `Loader`; see there."""
    loader = Loader(dataset, collate, num_workers=num_workers, deaths=deaths)
    return loader.batches(sampler, pin_memory=pin_memory, damage=damage, finish=finish)


class Loader(Generic[Example, Batch]):
    """Loads batches in `num_workers` processes (0: in this one), which start at once.

    With worker processes, `dataset` and `collate` must be picklable. Each process is up to PREFETCHED batches ahead. A
    process that is killed is replaced and added to `deaths`; the batches are the same, in the same order.
    """

    def __init__(
        self,
        dataset: TrainingSet[Example],
        collate: Callable[[Sequence[Example]], Batch],
        *,
        num_workers: int,
        deaths: DeathLog | None = None,
    ) -> None:
        work = _Load(_SkipDamage(dataset, [share.examples for share in shares_of(dataset)]), _CollateGood(collate))
        self.processes = LoadingProcesses(work, num_workers, deaths) if num_workers else InThisProcess(work)
        self.num_workers = num_workers

    def batches(
        self,
        sampler: Iterable[list[tuple[int, int]]],
        *,
        pin_memory: bool = False,
        damage: DamageLog | None = None,
        finish: Callable[[Any], Any] | None = None,
    ) -> Generator[Batch, None, None]:
        """The sampler's batches, once for each loader; the processes end with them.

        With `pin_memory`, batches have a `pin_memory` that returns what is yielded. `finish`, if given, completes what
        `collate` returns (and pins). Both are called in a thread of this process that works ahead.

        Raises the data set's BadInput, EnvironmentFailure and OSError as they are, but for DamagedSample: another
        example of its set, drawn from its key, takes its place. Those skipped for a batch are added to `damage` when
        the batch is yielded. Raises BadInput after MOST_DAMAGED of them in place of one example. Raises RuntimeError
        where loading processes die again and again.
        """
        damage = damage or DamageLog()
        complete = _Complete(pin_memory, finish) if pin_memory or finish is not None else None
        depth = PREFETCHED * self.num_workers or (2 if complete else 1)
        with (
            closing(self.processes) as processes,
            closing(in_order(processes, sampler, depth=depth, complete=complete, pins=pin_memory)) as loaded,
        ):
            for batch in loaded:
                if isinstance(batch, _FAILURES):
                    raise batch
                damage.add(batch.skipped)
                yield batch.value


Failure = BadInput | EnvironmentFailure | OSError
_FAILURES = (BadInput, EnvironmentFailure, OSError)
"""What is wrong with a file or with the machine; other errors are the program's, and keep their traceback."""


class _Loaded(NamedTuple):
    """An example or a batch, and the messages of the damaged samples that were skipped for it."""

    value: Any
    skipped: Sequence[str]


@dataclass(frozen=True)
class _SkipDamage(Generic[Example]):
    """Replaces damaged examples by others of the same set; `sizes` are the numbers of examples of the sets.

    Returns other failures instead of raising them: what a loading process raises is shown with its traceback.
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


@dataclass(frozen=True)
class _Load(Generic[Example, Batch]):
    """The batch of some keys: what loading processes are sent."""

    examples: _SkipDamage[Example]
    collate: _CollateGood[Example, Batch]

    def __call__(self, keys: Sequence[tuple[int, int]]) -> _Loaded | Failure:
        return self.collate([self.examples[key] for key in keys])


@dataclass(frozen=True)
class _Complete:
    """Pins the memory of a batch, and finishes it."""

    pin_memory: bool
    finish: Callable[[Any], Any] | None

    def __call__(self, batch: _Loaded | Failure) -> _Loaded | Failure:
        if isinstance(batch, _FAILURES):
            return batch
        value = batch.value.pin_memory() if self.pin_memory else batch.value
        return batch._replace(value=value if self.finish is None else self.finish(value))
