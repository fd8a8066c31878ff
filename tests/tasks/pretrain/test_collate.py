"""Examples packed into a batch: everything in it is what the examples hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reserve.batch.vocabulary import LTOVPOOL, MASK, MASKAUDIO, PAD
from reserve.tasks.pretrain.batch import SPAN_SOURCES, span_sources, span_streams
from reserve.tasks.pretrain.dataset import collate, evaluation_batches
from tests.helpers.small_stores import DATA, MODEL, make_dataset, make_stores


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return make_stores(tmp_path_factory.mktemp("stores"))


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
