"""Clips as examples: views, sound, what is random, and damaged files."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from reserve.data.loader import BatchSampler, load_batches
from reserve.errors import BadInput, DamagedSample
from reserve.tasks.kinetics600.annotations import usable_clips
from reserve.tasks.kinetics600.dataset import KineticsDataset
from reserve.tasks.kinetics600.stored import VERSION, KineticsSettings
from reserve.tasks.record_cache import RecordCache
from tests.helpers.kinetics_folder import LABELS, SIZES

CLASSES = sorted(LABELS)


def dataset(folder, cache, *, training=False, seed=0, model=SIZES, settings=None):
    clips = usable_clips(folder, "train", CLASSES)
    settings = settings or KineticsSettings()
    cache = RecordCache(cache, VERSION)
    return KineticsDataset(clips.paths, clips.labels, cache, model, settings, seed=seed, training=training)


def load(examples):
    """Batches of one example."""
    return load_batches(examples, BatchSampler(len(examples), 1), list, num_workers=0)


def test_a_clip_is_seen_and_heard_in_all_views(kinetics_folder, tmp_path):
    archery = dataset(kinetics_folder, tmp_path)[0, 0]

    assert archery.images.shape == (3, 2, 32, 64, 3)
    assert archery.images.dtype == np.float32
    assert archery.audio_clips.shape == (3, 2, 3, 60, 65)
    assert archery.audio_clips[..., :-1].max() > 1
    assert archery.label == CLASSES.index("archery")
    # Later frames are brighter, within a view and from view to view.
    brightness = archery.images[..., 10, 10, 0]
    assert (np.diff(brightness, axis=0) > 0.01).all()
    assert (np.diff(brightness, axis=1) > 0.1).all()


def test_a_clip_without_sound_is_seen_only(kinetics_folder, tmp_path):
    clips = usable_clips(kinetics_folder, "train", CLASSES)
    silent = clips.labels.index(CLASSES.index("zumba"))

    assert dataset(kinetics_folder, tmp_path)[0, silent].audio_clips is None


def test_a_model_that_does_not_hear_gets_no_sound(kinetics_folder, tmp_path):
    deaf = dataset(kinetics_folder, tmp_path, model=replace(SIZES, with_audio=False))

    assert deaf[0, 0].audio_clips is None


def test_draws_are_a_function_of_seed_epoch_and_index(kinetics_folder, tmp_path):
    one = dataset(kinetics_folder, tmp_path / "a", training=True)
    other = dataset(kinetics_folder, tmp_path / "b", training=True)

    assert one[2, 0].images.shape == (1, 2, 32, 64, 3)
    np.testing.assert_array_equal(one[2, 0].images, other[2, 0].images)
    np.testing.assert_array_equal(one[2, 0].audio_clips, other[2, 0].audio_clips)
    assert not np.array_equal(one[2, 0].images, one[3, 0].images)
    # All views come up, and with them other sound.
    assert len({one[epoch, 0].audio_clips.tobytes() for epoch in range(20)}) == 3


def test_training_skips_a_damaged_clip(changed_folder, tmp_path, caplog):
    damaged = dataset(changed_folder, tmp_path / "a", training=True)
    path = usable_clips(changed_folder, "train", CLASSES).paths[0]
    path.write_bytes(path.read_bytes()[:500])

    with pytest.raises(DamagedSample, match=re.escape(str(path))):
        damaged[0, 0]
    count = len(damaged)
    epoch = [example for batch in islice(load(damaged), count) for example in batch]
    assert len(epoch) == count
    assert caplog.text.count(f"a damaged sample is skipped: {path}: ") == 1
    # In evaluation it counts for nothing.
    held_out = dataset(changed_folder, tmp_path / "a")[0, 0]
    assert not held_out.is_readable
    assert held_out.images.shape == (3, 2, 32, 64, 3)


def test_training_ends_where_nothing_can_be_read(changed_folder, tmp_path):
    for path in usable_clips(changed_folder, "train", CLASSES).paths:
        path.write_bytes(b"no video")

    with pytest.raises(BadInput, match="20 samples in a row, drawn at random, are damaged"):
        next(load(dataset(changed_folder, tmp_path / "cache", training=True)))


def test_stored_clips_need_no_media(changed_folder, tmp_path):
    before = dataset(changed_folder, tmp_path / "cache")
    first = before[0, 0]
    usable_clips(changed_folder, "train", CLASSES).paths[0].unlink()

    np.testing.assert_array_equal(before[0, 0].images, first.images)


def test_a_clip_that_changes_is_prepared_again(changed_folder, tmp_path):
    clips = usable_clips(changed_folder, "train", CLASSES)
    before = dataset(changed_folder, tmp_path)[0, 0].images
    clips.paths[0].write_bytes(clips.paths[-1].read_bytes())
    assert not np.array_equal(dataset(changed_folder, tmp_path)[0, 0].images, before)


def test_other_views_are_stored_apart(kinetics_folder, tmp_path):
    dataset(kinetics_folder, tmp_path)[0, 0]

    other = dataset(kinetics_folder, tmp_path, settings=KineticsSettings(segments=3, views=1))[0, 0]

    assert other.images.shape == (1, 3, 32, 64, 3)
