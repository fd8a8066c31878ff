"""Store files as a collection: what is in the files, by the number of the video."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from reserve.data.collection import PartSet, StoreFiles
from reserve.data.store import load_segments, load_texts
from reserve.errors import BadInput
from tests.helpers.small_stores import make_stores


def test_store_files_are_a_part_and_its_collection(tmp_path):
    stores = make_stores(tmp_path, videos=3, segments=5)
    (part,) = PartSet.of_stores(stores).parts
    assert part.num_segments == 15
    collection = pickle.loads(pickle.dumps(part)).open()
    assert list(collection.segment_counts()) == [5, 5, 5]
    assert collection.texts(2) == load_texts(stores[2])
    found, expected = collection.load(1, 2, 4), load_segments(stores[1], 2, 4)
    assert (found.video_id, found.frames, found.words) == (expected.video_id, expected.frames, expected.words)
    np.testing.assert_array_equal(found.log_mel, expected.log_mel)


def test_the_words_of_a_video_are_read_once(tmp_path, monkeypatch):
    """Those of the last few videos that were read for the first time."""
    stores, read = make_stores(tmp_path, videos=3, segments=5), []
    monkeypatch.setattr("reserve.data.collection.load_texts", lambda path: (read.append(path), load_texts(path))[1])
    monkeypatch.setattr("reserve.data.collection.CACHED_TEXTS", 2)
    collection = StoreFiles(stores)
    for video in (0, 1, 0, 1, 2, 1, 2, 0):
        texts = collection.texts(video)
        assert texts == load_texts(stores[video])
        texts.clear()
    assert read == [stores[0], stores[1], stores[2], stores[0]]


def test_a_damaged_store_is_named(tmp_path):
    stores = make_stores(tmp_path, videos=2, segments=5)
    collection = StoreFiles(stores)
    with pytest.raises(BadInput, match=rf"^{stores[1]}: its frame.*; delete it"), collection.naming(1):
        raise BadInput("its frame is no JPEG")
    stores[1].write_bytes(b"")
    with pytest.raises(BadInput, match=rf"^{stores[1]}: not a store"):
        StoreFiles(stores)
