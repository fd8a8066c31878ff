"""Batches that a thread completes ahead of the step, and how far ahead they are."""

from __future__ import annotations

import threading
from itertools import islice

import pytest
import torch

from reserve.data.loader import PREFETCHED, BatchSampler, load_batches
from tests.helpers.noise import Noise, pinnable, stack
from tests.helpers.worker_functions import Keys


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_loading_is_ahead_by_a_bounded_number_of_batches(workers):
    asked = []

    def keys():
        for key in BatchSampler(9, 2):
            asked.append(key)
            yield key

    batches = load_batches(Keys(9), keys(), list, num_workers=workers)
    for count in range(1, 6):
        next(batches)
        assert len(asked) == count + (workers * PREFETCHED or 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_is_pinned_by_the_batch_beside_the_step(workers):
    expected = islice(load_batches(Noise(9), BatchSampler(9, 2), stack, num_workers=0), 5)
    batches = load_batches(Noise(9), BatchSampler(9, 2), pinnable, num_workers=workers, pin_memory=True)
    for batch, content in zip(batches, expected):  # noqa: B905  # batches are endless
        assert batch.pinned_by not in ("", threading.current_thread().name)
        assert torch.equal(batch.content, content)


def test_batches_are_finished_once_they_are_pinned():
    batches = load_batches(
        Noise(9), BatchSampler(9, 2), pinnable, num_workers=0, pin_memory=True, finish=lambda batch: batch.pinned_by
    )
    assert next(batches) not in ("", threading.current_thread().name)


def test_an_error_while_finishing_comes_after_the_batches_before_it():
    finished = []

    def finish(batch):
        finished.append(batch)
        if len(finished) == 3:
            raise KeyError("third")
        return batch

    batches = load_batches(Keys(9), BatchSampler(9, 2), list, num_workers=1, finish=finish)
    assert len(list(islice(batches, 2))) == 2
    with pytest.raises(KeyError, match="third"):
        next(batches)
