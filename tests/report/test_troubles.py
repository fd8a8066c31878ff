from __future__ import annotations

import math

import pytest

from reserve.report.troubles import troubles


@pytest.mark.parametrize(
    ("values", "count", "first"),
    [
        ([None, 1, 1, 3], 3, 2),
        ([None, 2, None, 1], 3, 2),  # a new start counts anew
        ([2, 1, 1, 4], 6, 1),
        ([None, math.nan, 1, 1], 1, 3),
    ],
)
def test_counts_are_added_over_the_starts_of_a_run(values, count, first):
    lines = [{"step": step, **({"failed_writes": v} if v is not None else {})} for step, v in enumerate(values, 1)]
    (found,) = troubles(lines)
    assert (found.name, found.count, found.step) == ("failed_writes", count, first)


def test_a_run_without_troubles_has_none():
    assert troubles([{"step": 1, "loss": 2.0, "alloc_retries": 0}]) == []
