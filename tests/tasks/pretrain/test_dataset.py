"""Examples from store files: their contents, and that they are a function of (seed, epoch, index)."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from torch.utils.data import DataLoader

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import AUDIOSPAN, END, LTOVPOOL, MASK, MASKAUDIO, PAD, SPECIAL_TOKENS, START
from reserve.data.collection import PartSet
from reserve.data.sources.random_text import TranscriptTextSource
from reserve.data.store import save_segments
from reserve.data.types import VideoMetadata, Word
from reserve.errors import BadInput
from reserve.tasks.pretrain.dataset import PretrainDataset, audio_clips
from tests.helpers.small_stores import (
    DATA,
    MODEL,
    colour,
    make_dataset,
    make_segments,
    make_stores,
    segment_words,
    tokenizer,
)

STREAMS = ("text2audio", "audio2text", "audio_text_matching", "random_text")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return make_stores(tmp_path_factory.mktemp("stores"))


def arrays(item) -> dict[str, np.ndarray]:
    """Every array of an item by name."""
    found = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, np.ndarray):
            found[field.name] = value
        elif is_dataclass(value):
            found |= {f"{field.name}.{name}": array for name, array in arrays(value).items()}
    return found


def assert_same(left, right):
    left, right = arrays(left), arrays(right)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_an_item_does_not_depend_on_earlier_ones(stores):
    keys = [(0, 0), (1, 3), (0, 5), (7, 2)]
    one, other = make_dataset(stores), make_dataset(stores)
    first = {key: one[key] for key in keys}
    for key in reversed(keys):
        assert_same(other[key], first[key])
    assert_same(one[keys[0]], first[keys[0]])


@pytest.mark.parametrize("read", ["words of the example", "random text", "counts"])
def test_a_damaged_store_is_named(tmp_path, read):
    stores = make_stores(tmp_path, videos=2, segments=4)
    dataset = make_dataset(stores)
    broken = {"words of the example": 0, "random text": 1, "counts": 0}[read]
    stores[broken].write_bytes(stores[broken].read_bytes()[:-10])
    (mine,) = (index for index in range(len(dataset)) if dataset.plans[index][1].videos == {0})
    with pytest.raises(BadInput, match=rf"^{stores[broken]}: not a store of segments.*; delete it"):
        make_dataset(stores) if read == "counts" else dataset[0, mine]


def test_an_item_is_the_same_in_fresh_processes(stores):
    """Two fresh processes with different hash seeds load alternate items."""
    dataset = make_dataset(stores)
    keys = [(epoch, index) for epoch in range(2) for index in range(len(dataset))]
    loader = DataLoader(
        dataset, sampler=keys, batch_size=None, num_workers=2, multiprocessing_context="spawn", collate_fn=_identity
    )
    for key, item in zip(keys, loader, strict=True):
        assert_same(item, dataset[key])


def _identity(item):
    return item


@pytest.mark.parametrize(("seed", "key"), [(0, (1, 0)), (1, (0, 0)), (0, (0, 1))], ids=["epoch", "seed", "index"])
def test_seed_epoch_and_index_each_change_the_masking(stores, seed, key):
    base, other = make_dataset(stores)[0, 0], make_dataset(stores, seed=seed)[key]
    assert not np.array_equal(base.text.text_spans, other.text.text_spans)
    assert not np.array_equal(base.span_noise, other.span_noise)


def test_images_are_bytes_of_the_models_size_and_of_the_right_segments(stores):
    dataset = make_dataset(stores, training=False)
    for index in range(len(dataset)):
        images, plan = dataset[0, index].images, dataset.plans[index][1]
        assert images.dtype == np.uint8
        assert images.shape == (DATA.num_segments, *MODEL.image_size, 3)
        for image, (video, segment) in zip(images, plan.segments, strict=True):
            np.testing.assert_allclose(image[:28, :32].mean((0, 1)), colour(video * 8 + segment), atol=4)


def test_training_crops_frames_at_random_and_inference_does_not(stores):
    training, inference = make_dataset(stores), make_dataset(stores, training=False)
    assert not np.array_equal(training[0, 0].images, training[1, 0].images)
    np.testing.assert_array_equal(inference[0, 0].images, inference[1, 0].images)


def test_audio_clips_are_cut_where_they_start():
    rng = np.random.default_rng(0)
    log_mel = rng.standard_normal((2, 20, 4)).astype(np.float32)
    starts = np.array([[0, 5], [3, 12]])
    clips = audio_clips(log_mel, np.array([1, 3]), starts, 8)
    assert clips.shape == (4, 8, 5)
    assert clips.dtype == np.float32
    for segment in range(2):
        for part in range(2):
            clip, start = clips[2 * segment + part], starts[segment, part]
            np.testing.assert_array_equal(clip[:, :4], log_mel[segment, start : start + 8])
            np.testing.assert_array_equal(clip[:, 4], [1, 3][segment])


def test_clips_are_those_of_the_segments_and_windows(stores):
    dataset = make_dataset(stores, training=False)
    clips = dataset[0, 1].audio_clips
    numbers = [video * 8 + segment for video, segment in dataset.plans[1][1].segments]
    assert clips.shape == (DATA.num_subsegments, 60, 65)
    np.testing.assert_array_equal(clips[:, 0, 0], np.repeat(numbers, 3))
    np.testing.assert_array_equal(clips[:, 0, 1], [2, 64, 126] * 4)
    np.testing.assert_array_equal(clips[..., 64], 1)


def test_words_keep_their_segment_and_time(stores):
    dataset = make_dataset(stores)
    collection, plan = dataset.plans[2]
    runs = [make_segments(run.video, 8, first_number=run.video * 8) for run in plan.ranges]
    for run, segments in zip(plan.ranges, runs, strict=True):
        segments.words = segments.words[run.start : run.stop]
        segments.playback_speed = segments.playback_speed[run.start : run.stop]
    text = dataset.unmasked_text(plan, runs, TranscriptTextSource(collection), np.random.default_rng(0))
    spoken = [word for video, segment in plan.segments for word in segment_words(video * 8 + segment)]
    assert tokenizer().decode(text.token_ids).split() == spoken
    np.testing.assert_array_equal(text.token_segment, np.repeat(np.arange(4), 9))
    np.testing.assert_allclose(text.token_start[:9], np.linspace(0.2, 4.6, 9), rtol=1e-6)
    np.testing.assert_allclose(text.token_end - text.token_start, 0.2, atol=1e-6)


def test_special_tokens_spelt_in_text_are_dropped(tmp_path):
    """Otherwise a transcript could insert masks of its own."""
    hostile = " ".join(SPECIAL_TOKENS)
    paths = []
    for video in range(2):
        segments = make_segments(video, 4, first_number=4 * video)
        segments.words = [[Word(hostile, 0.1, 0.3), *words, Word("<|MASK|>", 4.7, 4.8)] for words in segments.words]
        segments.metadata = VideoMetadata(hostile, hostile, (hostile, "<|PAD|>"))
        paths.append(tmp_path / f"{video}.safetensors")
        save_segments(segments, paths[-1])
    item = make_dataset(paths)[0, 0]
    counts = {name: np.bincount(getattr(item.text, name).ids.ravel(), minlength=10)[:10] for name in STREAMS}
    targets = DATA.num_masked_subsegments
    assert counts["text2audio"][[MASK, MASKAUDIO]].tolist() == [targets, targets]
    assert counts["audio2text"][MASK] == targets
    assert counts["random_text"][MASK] == DATA.text_span_budget
    assert counts["audio_text_matching"][[START, END, LTOVPOOL]].tolist() == [3, 1, DATA.num_segments]
    placed = {PAD, START, END, MASK, MASKAUDIO, AUDIOSPAN, LTOVPOOL}
    assert all(not counts[name][token] for name in STREAMS for token in range(10) if token not in placed)
    assert not ((item.text.text_spans > 0) & (item.text.text_spans < 10)).any()


def test_inference_splits_no_group(stores):
    """Training splits some groups into two videos; inference splits none."""
    dataset = make_dataset(stores, training=False)
    for epoch in range(20):
        np.testing.assert_array_equal(dataset[epoch, 0].text2audio_source, np.zeros((2, 2)))
    training = make_dataset(stores)
    assert any(training[epoch, 0].text2audio_source.any() for epoch in range(20))


def test_the_two_directions_are_split_independently(stores):
    dataset = make_dataset(stores)
    items = [dataset[epoch, 0] for epoch in range(30)]
    assert any((item.text2audio_source != item.audio2text_source).any() for item in items)


def test_streams_have_the_configured_shapes(stores):
    text = make_dataset(stores)[0, 0].text
    for name, shape in zip(STREAMS, [(2, 64), (2, 64), (1, 160), (1, 160)], strict=True):
        stream: TokenStream = getattr(text, name)
        assert stream.ids.shape == stream.audio_ptr.shape == stream.text_ptr.shape == shape, name
    assert text.text_spans.shape == (DATA.num_text_spans, MODEL.text_span_length)


def test_a_vocabulary_larger_than_the_models_is_refused(stores):
    with pytest.raises(ValueError, match=r"model.vocab_size must be at least the tokenizer's 32768; got 1000"):
        PretrainDataset([PartSet.of_stores(stores)], tokenizer(), None, DATA, replace(MODEL, vocab_size=1000))


def test_examples_of_existing_runs_stay(tmp_path):
    """Their segments, masks and random text: a run that is resumed must see the rest of the same epoch."""
    dataset = make_dataset(make_stores(tmp_path, videos=3, segments=7), seed=3)
    digest = hashlib.sha256()
    for key in [(0, 0), (0, 4), (5, 2)]:
        for name, array in sorted(arrays(dataset[key]).items()):
            if name.startswith("text.") and array.dtype.kind in "iu":
                digest.update(name.encode() + array.astype(np.int64).tobytes())
    assert (len(dataset), digest.hexdigest()[:16]) == (5, "70aa68aa2a5df186")
