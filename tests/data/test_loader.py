"""The order of batches, and loading them in worker processes."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain, islice
from pathlib import Path

import pytest

from reserve.data.loader import BatchSampler, batch_start, load_batches
from reserve.errors import BadInput, EnvironmentFailure
from tests.helpers.worker_functions import Keys, MarksItsEnd


def batches(count: int, *arguments, **settings) -> list[list[tuple[int, int]]]:
    return list(islice(BatchSampler(*arguments, **settings), count))


def test_no_example_is_twice_in_a_batch_or_an_epoch():
    for epoch, start in enumerate(range(0, 15, 5)):
        part = batches(15, 23, 4)[start : start + 5]
        assert {e for batch in part for e, _ in batch} == {epoch}
        used = [index for batch in part for _, index in batch]
        assert len(used) == len(set(used)) == 20
        assert set(used) <= set(range(23))


def test_every_epoch_has_another_order_and_leaves_out_others():
    first, second = batches(10, 23, 4)[:5], batches(10, 23, 4)[5:]
    orders = [[index for batch in part for _, index in batch] for part in (first, second)]
    assert orders[0] != orders[1]
    assert set(orders[0]) != set(orders[1])


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


def place_after(count: int, num_examples: int, batch: int, place: int = 0) -> int:
    """The place after `count` batches."""
    for _ in range(count):
        place = batch_start(place, num_examples, batch) + batch
    return place


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("start", [0, 1, 4, 5, 6, 13])
def test_a_place_resumes_the_order(start, parts):
    """Epochs of 23 examples have five batches; the sixth batch is the first of the next."""
    resumed = batches(4 * parts, 23, 4, place=place_after(start, 23, 4), accumulate=parts)
    assert resumed == batches((start + 4) * parts, 23, 4, accumulate=parts)[start * parts :]


@pytest.mark.parametrize(
    ("world_size", "other"), [*((1, other) for other in (1, 3, 5, 8, 12, 23)), *((2, other) for other in (1, 3, 11))]
)
@pytest.mark.parametrize("before", range(1, 9))
def test_batches_of_another_size_go_on_at_the_next_example(before, world_size, other):
    """No example of an epoch comes twice, and none is left out before too few are left for a batch."""
    first = list(chain(*batches(before, 23, 4)))
    ranks = [
        batches(30, 23, other, place=place_after(before, 23, 4), rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    then = list(chain(*(chain(*parts) for parts in zip(*ranks, strict=True))))
    epoch = first[-1][0]
    kept = [index for e, index in first + then if e == epoch]
    order = [index for _, index in batches(1, 23, 23, place=23 * epoch)[0]]
    assert kept == order[: len(kept)]
    assert 23 - len(kept) < other * world_size
    assert {e for e, _ in then} >= {epoch + 1}


def test_a_place_in_the_last_examples_of_an_epoch():
    assert batch_start(20, 23, 3) == 20
    assert batch_start(20, 23, 4) == 23
    assert batch_start(46, 23, 4) == 46


def test_too_few_examples_say_how_many_are_needed():
    with pytest.raises(ValueError, match=r"batch_size 4 on 2 device\(s\) needs 8 examples; the data set has 7"):
        BatchSampler(7, 4, world_size=2)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match=r"train.batch_size must be at least 1; got 0"):
        BatchSampler(7, 0)


def test_parts_of_unequal_size_are_refused():
    with pytest.raises(ValueError, match=r"train.accumulate must divide the 4 examples of a device; got 3"):
        BatchSampler(7, 4, accumulate=3)


def load(dataset, workers):
    return load_batches(dataset, BatchSampler(len(dataset), 2), list, num_workers=workers)


def test_worker_processes_load_the_same_batches():
    dataset = Keys(6)
    expected = batches(4, 6, 2)
    assert [list(islice(load(dataset, workers), 4)) for workers in (0, 1)] == [expected, expected]


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
