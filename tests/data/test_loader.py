"""Order and packing of batches."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from reserve.batch.vocabulary import LTOVPOOL, MASK, MASKAUDIO, PAD
from reserve.data.loader import BatchSampler, training_loader
from reserve.errors import BadInput
from reserve.tasks.pretrain.batch import SPAN_SOURCES, span_sources, span_streams
from reserve.tasks.pretrain.dataset import collate, evaluation_batches
from tests.helpers.small_stores import DATA, MODEL, make_dataset, make_stores

COLLATE = partial(collate, data=DATA, model=MODEL)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return make_stores(tmp_path_factory.mktemp("stores"))


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


def test_ranks_share_out_what_one_would_have_alone():
    """Side by side, the ranks' batches are the batch that a single device of that size gets."""
    alone = batches(6, 26, 6)
    ranks = [batches(6, 26, 2, rank=rank, world_size=3) for rank in range(3)]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("start", [0, 1, 4, 5, 6, 13])
def test_starting_at_a_batch_goes_on_where_a_run_stopped(start):
    assert batches(4, 23, 4, start_batch=start) == batches(start + 4, 23, 4)[start:]


def test_too_few_examples_say_how_many_are_needed():
    with pytest.raises(ValueError, match=r"batch_size 4 on 2 device\(s\) needs 8 examples; the videos give 7"):
        BatchSampler(7, 4, world_size=2)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match=r"train.batch_size must be at least 1; got 0"):
        BatchSampler(7, 0)


@pytest.fixture(scope="module", params=[False, True], ids=["kept", "every span"])
def collated(request, stores):
    dataset = make_dataset(stores)
    items = [dataset[0, index] for index in range(3)]
    return items, collate(items, DATA, MODEL, keep_every_span=request.param), request.param


def packed_ids(batch) -> np.ndarray:
    """Token id of every row of the packed joint sequence, -1 where it is no text."""
    order = batch.joint.order.numpy()
    ids = np.append(batch.joint.text_ids.numpy(), -1)
    return ids[np.minimum(order, len(ids) - 1)]


def test_images_and_clips_are_stacked(collated):
    items, batch, _ = collated
    assert batch.images.dtype == torch.uint8
    assert len(batch) == 3
    for index, item in enumerate(items):
        np.testing.assert_array_equal(batch.images[index], item.images)
        np.testing.assert_array_equal(batch.audio_clips[index], item.audio_clips)


def test_predictions_are_made_where_the_masks_are(collated):
    _, batch, _ = collated
    ids, at = packed_ids(batch), batch.targets
    assert (ids[at.pool_rows] == LTOVPOOL).all()
    assert (ids[at.audio_rows] == MASKAUDIO).all()
    assert (ids[at.span_rows] == MASK).all()
    for rows in (at.pool_rows, at.audio_rows, at.span_rows):
        assert len(np.unique(rows)) == len(rows)


def test_a_spans_row_words_and_source_belong_together(collated):
    """The prediction is made at the MASK that points to the span whose words are packed in the same place."""
    items, batch, _ = collated
    texts, at = [item.text for item in items], batch.targets
    lengths = batch.spans.cu_seqlens.diff().tolist()
    words = [span[1:].tolist() for span in batch.spans.token_ids.split(lengths)]
    for row, index, source, packed in zip(at.span_rows, at.span_index, at.span_source, words, strict=True):
        example, span = divmod(int(index), DATA.num_text_spans)
        stream = getattr(texts[example], SPAN_SOURCES[source])
        rows = batch.joint.rows[SPAN_SOURCES[source]].reshape(3, *stream.ids.shape)
        found = np.argwhere(rows == int(row))
        assert found[:, 0].tolist() == [example]
        assert stream.text_ptr[tuple(found[0, 1:])] == span
        assert packed == [token for token in texts[example].text_spans[span].tolist() if token != PAD]


def test_a_sounds_row_is_its_subsegments_mask(collated):
    items, batch, _ = collated
    at = batch.targets
    for row, index in zip(at.audio_rows, at.audio_index, strict=True):
        example, subsegment = divmod(int(index), DATA.num_subsegments)
        stream = items[example].text.text2audio
        found = np.argwhere(batch.joint.rows["text2audio"].reshape(3, *stream.ids.shape) == int(row))
        assert found[:, 0].tolist() == [example]
        assert stream.audio_ptr[tuple(found[0, 1:])] == subsegment
    every = torch.cat((at.audio_index, at.audio_extra)).sort().values
    assert every.tolist() == list(range(3 * DATA.num_subsegments))


def test_as_many_spans_are_kept_as_asked(collated):
    items, batch, every = collated
    texts = [item.text for item in items]
    spans = np.stack([text.text_spans for text in texts])
    valid = (spans != PAD).any(-1) & (span_sources(span_streams(texts), DATA.num_text_spans) >= 0)
    kept = sorted(batch.targets.span_index.tolist())
    if every:
        assert kept == np.flatnonzero(valid).tolist()
    else:
        assert len(kept) == len(set(kept)) == 3 * DATA.num_text_spans_to_include
        assert set(kept) <= set(np.flatnonzero(valid).tolist())


def test_spans_of_one_length_lie_side_by_side(collated):
    _, batch, _ = collated
    lengths = batch.spans.cu_seqlens.diff()
    assert (lengths.diff() >= 0).all()


def test_evaluation_sees_every_example_once_and_in_order(stores):
    dataset = make_dataset(stores, training=False)
    parts = list(evaluation_batches(dataset, 4))
    assert [len(part) for part in parts] == [4, 2]
    expected = np.stack([dataset[0, index].audio_clips for index in range(len(dataset))])
    np.testing.assert_array_equal(torch.cat([part.audio_clips for part in parts]), expected)


def test_worker_processes_give_the_batches_of_this_process(stores):
    dataset = make_dataset(stores)
    here, there = (
        list(islice(training_loader(dataset, BatchSampler(len(dataset), 2), COLLATE, num_workers=workers), 4))
        for workers in (0, 1)
    )
    for ours, theirs in zip(here, there, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.joint.text_ids, theirs.joint.text_ids)
        assert torch.equal(ours.targets.span_index, theirs.targets.span_index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_store_is_named(tmp_path, workers):
    """Not by a traceback out of the loading process."""
    stores = make_stores(tmp_path, videos=1)
    dataset = make_dataset(stores)
    content = stores[0].read_bytes()
    stores[0].write_bytes(content.replace(b"\xff\xd8", b"\0\0"))
    with pytest.raises(BadInput) as caught:
        next(training_loader(dataset, BatchSampler(len(dataset), 2), COLLATE, num_workers=workers))
    assert str(caught.value).startswith(f"{stores[0]}: a stored frame is no whole JPEG; delete it")


KEPT_TO_THE_END = """
if __name__ == "__main__":
    import sys
    from pathlib import Path
    sys.path.append(sys.argv[2])
    from tests.helpers.small_stores import make_dataset, make_stores
    from reserve.data.loader import BatchSampler, training_loader
    dataset = make_dataset(make_stores(Path(sys.argv[1])))
    batches = training_loader(dataset, BatchSampler(len(dataset), 2), COLLATE, num_workers=1)
    print(len(next(batches)))
"""


def test_a_program_that_keeps_its_loader_ends(tmp_path):
    """At its exit the loading processes are sent SIGTERM and waited for."""
    script = tmp_path / "script.py"
    script.write_text(KEPT_TO_THE_END)
    here = Path(__file__)
    done = subprocess.run(
        [sys.executable, script, tmp_path, here.parent],
        env=os.environ | {"PYTHONPATH": str(here.parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
