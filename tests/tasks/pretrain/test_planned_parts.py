"""Examples of several parts: each part planned as if it were alone, opened when needed, a bounded number kept."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

import pytest

from reserve.data.collection import PartSet
from reserve.errors import BadInput, TooFewSegments
from reserve.tasks.pretrain import planned_parts
from reserve.tasks.pretrain.example_plan import plan_examples
from reserve.tasks.pretrain.planned_parts import PlannedParts

COUNTS = [[9, 4, 3], [2], [4], [1, 1], [5, 5, 5]]
"""Segments of each video of each part; four make an example, so the second and the fourth part have none."""


@dataclass
class Counts:
    """A part and its collection, of which nothing but the counts is asked."""

    name: str
    counts: list[int]
    named: int | None = None
    opened: list[str] = field(default_factory=list)

    @property
    def num_segments(self) -> int:
        return sum(self.counts) if self.named is None else self.named

    def open(self) -> Counts:
        self.opened.append(self.name)
        return self

    def segment_counts(self) -> list[int]:
        return self.counts


def make_sets(*counts: list[list[int]]) -> list[PartSet]:
    return [
        PartSet(f"set {number}", [Counts(f"part {number}-{i}", part) for i, part in enumerate(parts)], 1)
        for number, parts in enumerate(counts)
    ]


def opened(sets: list[PartSet]) -> list[str]:
    return [name for each in sets for part in each.parts for name in part.opened]


def test_a_part_is_planned_as_if_it_were_alone():
    sets = make_sets(COUNTS[:2], COUNTS[2:])
    plans = PlannedParts(sets, 4, seed=3)
    expected = [
        (part, plan)
        for part in (part for each in sets for part in each.parts)
        if part.num_segments >= 4
        for plan in plan_examples(part.counts, 4, seed=3)
    ]
    assert len(plans) == len(expected) == 8
    assert [plans[index] for index in range(8)] == expected


def test_parts_are_opened_when_their_examples_are_asked_for():
    sets = make_sets(COUNTS)
    plans = PlannedParts(sets, 4)
    assert opened(sets) == []
    for index in (7, 6, 7):
        plans[index]
    assert opened(sets) == ["part 0-4"]
    for index in range(len(plans)):
        plans[index]
    assert sorted(opened(sets)) == ["part 0-0", "part 0-2", "part 0-4"]


def test_the_number_of_open_parts_is_bounded(monkeypatch):
    """And an example is the same after its part was closed."""
    monkeypatch.setattr(planned_parts, "MAX_OPEN", 2)
    monkeypatch.setattr(planned_parts, "MAX_PLANNED", 1)
    sets = make_sets(COUNTS)
    plans, fresh = PlannedParts(sets, 4, seed=1), PlannedParts(make_sets(COUNTS), 4, seed=1)
    for index in (0, 7, 0, 7):
        assert plans[index] == (plans[index][0], fresh[index][1])
    assert opened(sets) == ["part 0-0", "part 0-4"]
    plans[4]
    plans[0]
    assert opened(sets) == ["part 0-0", "part 0-0", "part 0-2", "part 0-4"]
    assert len(plans._open._values) == 2
    assert len(plans._planned._values) == 1


def test_the_other_parts_of_a_set_begin_after_the_examples_own():
    plans = PlannedParts(make_sets([[4], [8], [2]], [[5], [6]], [[4]]), 4)
    found = [[other.name for other in plans.others(index)] for index in range(len(plans))]
    first, second = ["part 0-1", "part 0-2"], ["part 0-2", "part 0-0"]
    assert found == [first, second, second, ["part 1-1"], ["part 1-0"], []]


def test_a_pickle_holds_no_open_part():
    plans = PlannedParts(make_sets(COUNTS), 4)
    size = len(pickle.dumps(plans))
    first = plans[0][1]
    assert len(pickle.dumps(plans)) - size < 50
    assert pickle.loads(pickle.dumps(plans))[0][1] == first


@pytest.mark.parametrize("index", [-1, 8])
def test_an_index_out_of_bounds_is_an_error(index):
    with pytest.raises(IndexError, match=f"example {index} is out of bounds: there are 8"):
        PlannedParts(make_sets(COUNTS), 4)[index]


def test_a_set_without_an_example_is_named():
    with pytest.raises(TooFewSegments, match="set 1: none of its 2 parts has the 4 segments that one example needs"):
        PlannedParts(make_sets(COUNTS, [[3], [1, 2]]), 4)
    with pytest.raises(TooFewSegments, match="the 2 videos have 3 segments in all; one example needs 4"):
        PlannedParts(make_sets(COUNTS, [[1, 2]]), 4)


def test_a_part_with_other_counts_than_its_set_names_is_refused():
    """Otherwise examples of the part would be numbers of other parts' examples."""
    (part_set,) = make_sets([[4, 4]])
    part_set.parts[0].named = 12
    with pytest.raises(BadInput, match="part 0-0 has 8 segments, not the 12 that its set names"):
        PlannedParts([part_set], 4)[0]
