"""Batches that a thread completes ahead of the step, and how far ahead they are."""

from __future__ import annotations

import threading
from itertools import islice
from threading import Barrier

import pytest
import torch

from reserve.data.completing import in_order
from reserve.data.loader import PREFETCHED, BatchSampler, load_batches
from reserve.data.loading_processes import InThisProcess
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


class Slow(InThisProcess):
    """Loads the first batch, and never has another one ready."""

    def __init__(self) -> None:
        super().__init__(str)
        self.received = 0

    def ready(self) -> bool:
        return False

    def receive(self) -> str:
        self.received += 1
        return super().receive()


def test_a_batch_does_not_wait_for_the_one_after_it():
    processes = Slow()
    batches = in_order(processes, range(4), depth=2, complete=str.upper)
    assert [next(batches), processes.received] == ["0", 1]
    assert [next(batches), processes.received] == ["1", 2]
    batches.close()


def test_batches_that_are_there_are_completed_ahead():
    completed = Barrier(2)

    def complete(batch: int) -> int:
        if batch == 2:
            completed.wait(60)
        return batch

    batches = in_order(InThisProcess(int), range(4), depth=3, complete=complete)
    assert next(batches) == 0
    completed.wait(60)
    batches.close()


class Dying(InThisProcess):
    """Loads one batch; after the error of the next, its connection is closed."""

    closed = False

    def ready(self) -> bool:
        if self.closed:
            raise ValueError("Invalid file descriptor: -1")
        return True

    def receive(self) -> str:
        if self.pending < 4:
            self.closed = True
            raise RuntimeError("3 loading processes in a row died")
        return super().receive()


def test_nothing_is_received_after_an_error():
    batches = in_order(Dying(str), range(9), depth=4, complete=str.upper)
    assert next(batches) == "0"
    with pytest.raises(RuntimeError, match="in a row died"):
        list(batches)
