"""The examples of sets of parts by number; each part is planned by itself, when an example of it is first needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from reserve.data.collection import Collection, Part, PartSet
from reserve.data.order import SetShare
from reserve.errors import BadInput, TooFewSegments
from reserve.tasks.pretrain.example_plan import ExamplePlan, SegmentRange, plan_examples

MAX_OPEN = 32
"""Collections of parts that are kept open."""
MAX_PLANNED = 512
"""Parts whose plans are kept: some 70 kB for each thousand videos."""
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class PlannedParts:
    """Examples of sets of parts, numbered through all parts of all sets. Objects can be pickled.

    A part of n segments has n // `num_segments` examples, those of `plan_examples`; none joins segments of two parts.
    In memory are one number a part, and the plans and open collections of the parts used last. Raises TooFewSegments
    if a set has no example.
    """

    def __init__(self, sets: Sequence[PartSet], num_segments: int, *, seed: int = 0) -> None:
        self.sets, self._num_segments, self._seed = tuple(sets), num_segments, seed
        self._parts = [part for each in self.sets for part in each.parts]
        counts = np.array([part.num_segments // num_segments for part in self._parts], np.int64)
        self._total, self._first = int(counts.sum()), np.cumsum(counts) - counts
        sizes = np.split(counts, np.cumsum([len(each.parts) for each in self.sets])[:-1])
        self.shares = tuple(self._share(each, int(size.sum())) for each, size in zip(self.sets, sizes, strict=True))
        self._open: _Recent[int, Collection] = _Recent(MAX_OPEN)
        self._planned: _Recent[int, _Plans] = _Recent(MAX_PLANNED)

    def __len__(self) -> int:
        return self._total

    @property
    def num_videos(self) -> int:
        """Videos of all sets together."""
        return sum(each.num_videos for each in self.sets)

    def __getitem__(self, index: int) -> tuple[Collection, ExamplePlan]:
        """Example `index`: its plan, and the collection whose videos the plan numbers."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} is out of bounds: there are {len(self)}")
        number = self._part_of(index)
        collection = self._opened(number)
        plans = self._planned.get(number, lambda: self._plan(self._parts[number], collection))
        return collection, plans[index - int(self._first[number])]

    def others(self, index: int) -> Iterator[Collection]:
        """The other collections of the set of example `index`, from the one after its own on."""
        number, first = self._part_of(index), 0
        for each in self.sets:
            count = len(each.parts)
            if number < first + count:
                break
            first += count
        for step in range(1, count):
            yield self._opened(first + (number - first + step) % count)

    def _part_of(self, index: int) -> int:
        return int(np.searchsorted(self._first, index, side="right")) - 1

    def _opened(self, number: int) -> Collection:
        return self._open.get(number, lambda: self._parts[number].open())

    def _plan(self, part: Part, collection: Collection) -> _Plans:
        counts = collection.segment_counts()
        total = int(np.sum(counts))
        if total != part.num_segments:
            raise BadInput(f"{part.name} has {total} segments, not the {part.num_segments} that its set names")
        return _Plans.of(plan_examples([int(count) for count in counts], self._num_segments, seed=self._seed))

    def _share(self, each: PartSet, examples: int) -> SetShare:
        if not examples and len(each.parts) == 1:
            plan_examples(list(each.parts[0].open().segment_counts()), self._num_segments)
        if not examples:
            raise TooFewSegments(
                f"{each.name}: none of its {len(each.parts)} parts has the {self._num_segments} segments that one "
                "example needs"
            )
        return SetShare(each.name, examples, each.weight, each.identity)


@dataclass(frozen=True)
class _Plans:
    """Plans of a part as arrays: `ranges` int32 [ranges, 3], (video, start, stop); those of example i are `ranges`
    `first[i]` to `first[i + 1]` - 1."""

    first: np.ndarray
    ranges: np.ndarray

    @classmethod
    def of(cls, plans: Sequence[ExamplePlan]) -> _Plans:
        ranges = [(run.video, run.start, run.stop) for plan in plans for run in plan.ranges]
        return cls(np.cumsum([0, *(len(plan.ranges) for plan in plans)]), np.array(ranges, np.int32))

    def __getitem__(self, index: int) -> ExamplePlan:
        chosen = self.ranges[self.first[index] : self.first[index + 1]].tolist()
        return ExamplePlan(tuple(SegmentRange(*run) for run in chosen))


class _Recent(Generic[Key, Value]):
    """The values made last, at most `size` of them. A pickle has none of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        if key not in self._values:
            self._values[key] = make()
            if len(self._values) > self._size:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return _Recent, (self._size,)
