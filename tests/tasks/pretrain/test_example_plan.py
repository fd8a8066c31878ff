"""Which segments form an example."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reserve.errors import TooFewSegments
from reserve.tasks.pretrain.example_plan import ExamplePlan, SegmentRange, plan_examples


@given(st.lists(st.integers(0, 70), max_size=30), st.integers(1, 16), st.integers(0, 5))
def test_every_segment_at_most_once_and_as_many_examples_as_there_can_be(counts, size, seed):
    if sum(counts) < size:
        with pytest.raises(TooFewSegments):
            plan_examples(counts, size, seed=seed)
        return
    plans = plan_examples(counts, size, seed=seed)
    used = [segment for plan in plans for segment in plan.segments]
    assert len(used) == len(set(used)) == size * (sum(counts) // size)
    assert all(0 <= index < counts[video] for video, index in used)
    assert all(len(plan.segments) == size for plan in plans)
    for video, count in enumerate(counts):
        assert sum(plan.videos == {video} for plan in plans) >= count // size


def test_long_video_gives_consecutive_runs_mostly_from_its_front():
    firsts = [plan_examples([40], seed=seed)[0].ranges for seed in range(400)]
    assert set(firsts) == {(SegmentRange(0, 0, 16),), (SegmentRange(0, 24, 40),)}
    assert np.mean([runs == (SegmentRange(0, 0, 16),) for runs in firsts]) == pytest.approx(0.8, abs=0.07)


def test_leftovers_longest_first():
    (plan,) = plan_examples([2, 9, 5, 3])
    assert [(run.video, len(run)) for run in plan.ranges] == [(1, 9), (2, 5), (0, 2)]
    assert plan.video_src_index.tolist() == [0] * 9 + [1] * 5 + [2] * 2


def test_part_of_a_leftover_fills_what_is_missing():
    first, *rest = plan_examples([10, 10, 10], 16, seed=1)
    assert not rest
    assert sorted(len(run) for run in first.ranges) == [6, 10]


def test_source_index_counts_videos_in_order_of_appearance():
    plan = ExamplePlan((SegmentRange(7, 3, 5), SegmentRange(2, 0, 1), SegmentRange(2, 8, 9)))
    assert plan.video_src_index.tolist() == [0, 0, 1, 1]
    assert plan.video_src_index.dtype == np.int32
    assert plan.segments == [(7, 3), (7, 4), (2, 0), (2, 8)]


def test_the_plan_is_a_function_of_the_seed():
    counts = list(range(60))
    assert plan_examples(counts, seed=3) == plan_examples(counts, seed=3)
    assert plan_examples(counts, seed=3) != plan_examples(counts, seed=4)


def test_too_few_segments_says_how_many():
    with pytest.raises(TooFewSegments, match="the 3 videos have 9 segments in all; one example needs 16"):
        plan_examples([4, 5, 0])
