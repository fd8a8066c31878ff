"""The order of batches, and loading them in worker processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reserve.data.loader import MOST_DAMAGED, BatchSampler, DamageLog, InOrder, Loader, load_batches
from reserve.data.loading_processes import DeathLog
from reserve.data.order import SetShare, epoch_order
from reserve.errors import BadInput, DamagedSample, EnvironmentFailure
from tests.helpers.noise import Noise, pinnable, stack
from tests.helpers.worker_functions import Damaged, Keys, MarksItsEnd


def batches(count: int, *arguments, **settings) -> list[list[tuple[int, int]]]:
    return list(islice(BatchSampler(*arguments, **settings), count))


def stream(start: int, count: int, num_examples: int, seed: int = 0) -> list[tuple[int, int]]:
    """(epoch, index) at `count` positions: the epochs' orders, one after the other."""
    epochs = range((start + count) // num_examples + 1)
    every = [(epoch, int(index)) for epoch in epochs for index in epoch_order(num_examples, seed, epoch)]
    return every[start : start + count]


def step_of_all_ranks(world_size: int, accumulate: int, size: int, place: int, **settings) -> list[tuple[int, int]]:
    """The examples of a step, in the order of the stream: those of each part, rank by rank."""
    ranks = [
        batches(
            accumulate,
            EXAMPLES,
            size * accumulate,
            rank=rank,
            world_size=world_size,
            accumulate=accumulate,
            place=place,
            **settings,
        )
        for rank in range(world_size)
    ]
    return [key for parts in zip(*ranks, strict=True) for part in parts for key in part]


def test_batches_straddle_epochs_and_drop_nothing():
    """Six batches of four from epochs of 23: the last one holds the first example of the next epoch."""
    assert [len(batch) for batch in batches(30, 23, 4)] == [4] * 30
    assert [e for e, _ in batches(6, 23, 4)[-1]] == [0, 0, 0, 1]
    used = list(chain(*batches(23, 23, 4)))
    assert used == stream(0, 4 * 23, 23)
    assert sorted(used) == [(epoch, index) for epoch in range(4) for index in range(23)]


@pytest.mark.parametrize("batch_size", range(1, 8))
def test_no_example_is_twice_in_a_batch_of_a_third_of_the_data_set(batch_size):
    for batch in batches(40 * 23, 23, batch_size):
        assert len({index for _, index in batch}) == batch_size


EXAMPLES = 24

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 6)).filter(
    lambda shape: shape[0] * shape[1] * shape[2] <= EXAMPLES
)
"""Ranks, parts, and examples of a part."""


@given(st.lists(st.tuples(SHAPES, st.integers(1, 4)), min_size=1, max_size=6), st.integers(0, 3))
def test_any_sequence_of_batch_sizes_and_ranks_gives_the_same_stream(resumes, seed):
    """Each step may be the first of a resumed run: only the number of examples used so far is carried over."""
    used: list[tuple[int, int]] = []
    for (world_size, accumulate, size), steps in resumes:
        for _ in range(steps):
            used += step_of_all_ranks(world_size, accumulate, size, len(used), seed=seed)
    assert used == stream(0, len(used), EXAMPLES, seed)
    whole = len(used) // EXAMPLES * EXAMPLES
    assert sorted(used[:whole]) == [(e, i) for e in range(whole // EXAMPLES) for i in range(EXAMPLES)]


@given(SHAPES, st.integers(0, 100), st.integers(1, 5))
def test_going_on_and_resuming_at_any_step_are_the_same(shape, place, steps):
    world_size, accumulate, size = shape
    for rank in range(world_size):
        settings = {"rank": rank, "world_size": world_size, "accumulate": accumulate}
        batch_size = size * accumulate
        going_on = batches(accumulate * (steps + 2), EXAMPLES, batch_size, place=place, **settings)
        resumed = batches(
            accumulate * 2, EXAMPLES, batch_size, place=place + steps * batch_size * world_size, **settings
        )
        assert resumed == going_on[accumulate * steps :]


def test_a_place_far_on_costs_no_more_than_the_first(monkeypatch):
    """Its epoch is computed alone."""
    computed = []
    monkeypatch.setattr(
        "reserve.data.order.epoch_order",
        lambda n, seed, epoch, stream: (computed.append(epoch), epoch_order(n, seed, epoch))[1],
    )
    assert batches(12, 23, 4, place=23 * 10**9) == batches(12, 23, 4, place=23 * 10**9)
    assert computed == [10**9, 10**9 + 1, 10**9 + 2] * 2


def test_the_seed_decides_the_order():
    assert batches(3, 40, 4, seed=1) == batches(3, 40, 4, seed=1) != batches(3, 40, 4, seed=2)


def test_ranks_divide_the_batch_of_a_single_rank():
    """Side by side, the ranks' batches are the batch that a single device of that size gets."""
    alone = batches(6, 26, 6)
    ranks = [batches(6, 26, 2, rank=rank, world_size=3) for rank in range(3)]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_parts_of_all_ranks_are_the_batch_of_a_single_device(world_size):
    """In another order within the batch, across the end of an epoch too."""
    alone = batches(6, 26, 12)
    size = 12 // world_size
    ranks = [batches(18, 26, size, rank=rank, world_size=world_size, accumulate=3) for rank in range(world_size)]
    assert {len(part) for parts in ranks for part in parts} == {size // 3}
    together = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert [list(chain(*together[i : i + 3])) for i in range(0, 18, 3)] == alone


def test_too_few_examples_say_how_many_are_needed():
    with pytest.raises(ValueError, match=r"batch_size 4 on 2 device\(s\) needs 8 examples; the data set has 7"):
        BatchSampler(7, 4, world_size=2)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match=r"train.batch_size must be at least 1; got 0"):
        BatchSampler(7, 0)


def test_a_set_too_small_for_its_share_of_a_batch_is_named():
    sets = [SetShare("talks", 50, 1.0), SetShare("songs", 7, 1.0)]
    with pytest.raises(ValueError, match=r"songs of weight 1 with 7 examples is too small .* a batch of 8 can hold 8"):
        BatchSampler(sets, 4, world_size=2)
    assert len(next(iter(BatchSampler(sets, 7)))) == 7


def test_parts_of_unequal_size_are_refused():
    with pytest.raises(ValueError, match=r"train.accumulate must divide the 4 examples of a device; got 3"):
        BatchSampler(7, 4, accumulate=3)


def load(dataset, workers):
    return load_batches(dataset, BatchSampler(len(dataset), 2), list, num_workers=workers)


def test_worker_processes_load_the_same_batches():
    dataset = Keys(6)
    expected = batches(4, 6, 2)
    assert [list(islice(load(dataset, workers), 4)) for workers in (0, 1)] == [expected, expected]


def test_the_number_of_worker_processes_may_change_at_every_resume():
    dataset, used = Keys(7), []
    for workers, batch_size in ((0, 3), (2, 4), (0, 7)):
        loaded = load_batches(dataset, BatchSampler(7, batch_size, place=len(used)), list, num_workers=workers)
        used += chain(*islice(loaded, 3))
    assert used == stream(0, 3 * (3 + 4 + 7), 7)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_batches_are_the_same_for_any_number_of_processes(accumulate):
    """Bit for bit, across epochs."""
    found = []
    for workers in range(4):
        sampler = BatchSampler(13, 6, accumulate=accumulate)
        found.append(list(islice(load_batches(Noise(13), sampler, stack, num_workers=workers), 7)))
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_processes_stay_from_epoch_to_epoch():
    loader = Loader(Keys(5), list, num_workers=2)
    pids = loader.processes.pids
    batches = loader.batches(BatchSampler(5, 2))
    for _ in range(12):
        next(batches)
        assert loader.processes.pids == pids
    batches.close()


def test_processes_start_before_the_first_batch_is_asked_for():
    loader = Loader(Keys(5), list, num_workers=1)
    [pid] = loader.processes.pids
    os.kill(pid, 0)
    batches = loader.batches(BatchSampler(5, 2))
    next(batches)
    assert loader.processes.pids == [pid]
    batches.close()


def test_evaluation_gets_every_example_once():
    for workers in (0, 2):
        batches = load_batches(Keys(7), InOrder(7, 2), list, num_workers=workers)
        assert list(chain(*batches)) == [(0, index) for index in range(7)]


def kill_at_random(loader: Loader, rng: random.Random) -> threading.Timer:
    """Kills one of the loading processes within 30 ms."""

    def kill() -> None:
        # One that is dead may not have been replaced yet.
        with suppress(ProcessLookupError):
            os.kill(rng.choice(loader.processes.pids), signal.SIGKILL)

    timer = threading.Timer(rng.uniform(0, 0.03), kill)
    timer.start()
    return timer


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_killing_loading_processes_changes_no_batch(workers, pinned):
    rng, deaths = random.Random(workers), DeathLog()
    loader = Loader(Noise(13), pinnable if pinned else stack, num_workers=workers, deaths=deaths)
    batches = loader.batches(BatchSampler(13, 3), pin_memory=pinned)
    kills = {0, 1, 6, 13}
    for number, expected in enumerate(islice(load_batches(Noise(13), BatchSampler(13, 3), stack, num_workers=0), 20)):
        timer = kill_at_random(loader, rng) if number in kills else None
        batch = next(batches)
        assert torch.equal(batch.content if pinned else batch, expected)
        if timer is not None:
            timer.join()
    # A process that is killed twice is replaced once.
    assert 1 <= deaths.count <= len(kills)
    batches.close()


def test_killing_a_loading_process_changes_no_evaluation():
    loader = Loader(Noise(31), stack, num_workers=1)
    batches = loader.batches(InOrder(31, 2))
    found = []
    for number, batch in enumerate(batches):
        found.append(batch)
        if number == 5:
            os.kill(loader.processes.pids[0], signal.SIGKILL)
    expected = load_batches(Noise(31), InOrder(31, 2), stack, num_workers=0)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "error",
    [BadInput("clip.safetensors: damaged"), EnvironmentFailure("a lost mount"), OSError(28, "No space", "a.zip")],
)
def test_failures_arrive_as_they_were_raised(workers, error):
    """Not as a traceback out of the worker process."""
    with pytest.raises(type(error)) as caught:
        next(load(Keys(6, error=error), workers))
    assert str(caught.value) == str(error)


SETS = [SetShare("talks", 40, 3.0), SetShare("songs", 30, 1.0)]


def load_damaged(damaged, workers, place=0):
    log = DamageLog()
    sampler = BatchSampler(SETS, 5, place=place)
    return load_batches(Damaged(SETS, damaged), sampler, list, num_workers=workers, damage=log), log


def test_a_damaged_sample_is_replaced_by_one_of_its_set(caplog):
    damaged = {3, 4, 5, 50}
    batches, log = load_damaged(damaged, 0)
    loaded = list(chain(*islice(batches, 40)))
    wanted = list(chain(*islice(BatchSampler(SETS, 5), 40)))
    skipped = 0
    for (epoch, index), found in zip(wanted, loaded, strict=True):
        if index not in damaged:
            assert found == (epoch, index)
            continue
        skipped += 1
        assert found[0] == epoch
        assert found[1] not in damaged
        assert (found[1] < 40) == (index < 40)
    assert 10 < skipped <= log.count
    messages = [record.getMessage() for record in caplog.records if record.name == "reserve.data.loader"]
    assert sorted(messages) == [f"a damaged sample is skipped: sample {index}" for index in (3, 4, 5, 50)]


def test_what_replaces_damage_depends_on_nothing_but_the_place():
    """Neither on the number of worker processes nor on where the run was resumed."""
    damaged = set(range(0, 70, 2))
    expected, log = load_damaged(damaged, 0)
    expected = list(islice(expected, 8))
    for workers, place in ((1, 0), (2, 0), (2, 15)):
        batches, other = load_damaged(damaged, workers, place)
        assert list(islice(batches, 8 - place // 5)) == expected[place // 5 :]
        assert place or other.count == log.count


def test_damage_is_counted_when_the_trainer_gets_the_batch():
    """Loading processes are some batches ahead, more of them further."""
    batches, log = load_damaged(set(range(0, 70, 2)), 2)
    counts = [log.count for _ in islice(batches, 4)]
    alone, log = load_damaged(set(range(0, 70, 2)), 0)
    assert counts == [log.count for _ in islice(alone, 4)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_of_damaged_samples_is_an_error(workers):
    batches, _ = load_damaged(set(range(40)), workers)
    with pytest.raises(
        BadInput, match=rf"^{MOST_DAMAGED} samples in a row.* are damaged; the last: sample \d+$"
    ) as caught:
        list(islice(batches, 8))
    assert not isinstance(caught.value, DamagedSample)


def test_loading_processes_end_without_finalising_python(tmp_path):
    """Finalising ends threads that are sending a batch within C++ code, which aborts the process."""
    batches = load(MarksItsEnd(6, tmp_path / "marker"), 1)
    next(batches)
    batches.close()
    assert not (tmp_path / "marker").exists()


KEEPS_ITS_LOADER = """
if __name__ == "__main__":
    from reserve.data.loader import BatchSampler, load_batches
    from tests.helpers.worker_functions import Keys
    batches = load_batches(Keys(6), BatchSampler(6, 2), list, num_workers=1)
    print(len(next(batches)))
"""


def test_program_that_keeps_its_loader_exits(tmp_path):
    """At exit, the worker processes are sent SIGTERM and joined."""
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{KEEPS_ITS_LOADER}")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
