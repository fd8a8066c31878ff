"""Batches that the training device completes are those that the loader would have made."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from reserve.batch.movable import Movable
from reserve.config import TrainConfig
from reserve.data.collection import PartSet
from reserve.errors import DamagedSample
from reserve.tasks.pretrain.dataset import PretrainDataset, collate, collate_undecoded
from reserve.tasks.pretrain.shard_sets import part_sets
from reserve.tasks.pretrain.task import Pretrain
from reserve.tasks.pretrain.undecoded import BatchSound, Finisher, SegmentSounds
from tests.helpers.small_shards import make_shard_set
from tests.helpers.small_stores import DATA, MODEL, make_stores, tokenizer

pytest.importorskip("nvidia.dali")
KEYS = [(0, 0), (0, 3), (2, 1)]


def dataset(sets, *, decoded, training=True):
    return PretrainDataset(sets, tokenizer(), None, DATA, MODEL, seed=3, training=training, decoded=decoded)


def stores(folder):
    return lambda spectrograms: [PartSet.of_stores(make_stores(folder, 3, 8))]


def shards(folder, sound):
    make_shard_set(folder / "set", (2, 1), 8, sound)
    return lambda spectrograms: part_sets([str(folder / "set")], [], DATA, TrainConfig(), spectrograms=spectrograms)


@pytest.fixture(params=["stores", "log_mel", "flac"])
def sets(request, tmp_path):
    """The same videos as store files, and as shards with either kind of sound."""
    return stores(tmp_path) if request.param == "stores" else shards(tmp_path, request.param)


def tensors_of(item) -> dict[str, object]:
    found = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, Movable):
            found |= {f"{field.name}.{name}": each for name, each in tensors_of(value).items()}
        else:
            found[field.name] = value
    return found


def assert_same_but_for_pictures(found, expected):
    found, expected = tensors_of(found), tensors_of(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name == "images":
            # DALI's box and nearest filters are others than Pillow's.
            assert found[name].shape == value.shape
            assert (found[name].float() - value.float()).abs().mean() < 2
        elif isinstance(value, torch.Tensor):
            assert torch.equal(found[name], value), name
        else:
            np.testing.assert_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_completed_on_the_device_is_the_loaders(sets, training):
    expected, ours = (dataset(sets(decoded), decoded=decoded, training=training) for decoded in (True, False))
    batch = collate_undecoded([ours[key] for key in KEYS], DATA, MODEL)
    found = Finisher(DATA, MODEL, torch.device("cpu"))(batch)
    assert_same_but_for_pictures(found, collate([expected[key] for key in KEYS], DATA, MODEL))


def test_sound_stays_encoded_only_where_it_is_stored(sets, request):
    example = dataset(sets(False), decoded=False)[0, 0]
    assert len(example.encoded) == DATA.num_segments
    assert (example.sound is not None) == ("flac" in request.node.callspec.id)


def test_a_batch_of_both_kinds_of_sound(tmp_path):
    """A mixture of sets: the loader makes the spectrograms that are missing."""
    kinds = [shards(tmp_path / sound, sound) for sound in ("log_mel", "flac")]
    examples = [
        [dataset(each(d), decoded=d)[key] for each, key in zip(kinds, KEYS, strict=False)] for d in (True, False)
    ]
    batch = collate_undecoded(examples[1], DATA, MODEL)
    assert batch.sound is None
    found = Finisher(DATA, MODEL, torch.device("cpu"))(batch)
    assert_same_but_for_pictures(found, collate(examples[0], DATA, MODEL))


def test_segments_of_different_playback_speeds():
    """Each gets its own spectrogram, whatever the order."""
    rng = np.random.default_rng(0)
    speeds, starts = np.array([3, 1, 2, 1]), np.array([[0, 60, 120]] * 4)
    samples = [rng.integers(-9000, 9000, 110250 * speed).astype(np.int16) for speed in speeds]
    together = BatchSound.of([SegmentSounds(samples, speeds, starts)]).audio_clips(DATA, 60)
    alone = [
        BatchSound.of([SegmentSounds([each], speed[None], start[None])]).audio_clips(DATA, 60)
        for each, speed, start in zip(samples, speeds, starts, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=0)
    assert together.shape == (12, 60, 65)
    assert together[:, 0, -1].tolist() == np.repeat(speeds, 3).tolist()


def test_damaged_sound_is_named(tmp_path):
    make = shards(tmp_path, "flac")
    examples = dataset(make(False), decoded=False)
    collection, plan = examples.plans[0]
    runs = [collection.load(run.video, run.start, run.stop) for run in plan.ranges]
    runs[0] = replace(runs[0], sound=[b"x", *runs[0].sound[1:]])
    with pytest.raises(DamagedSample, match=r"shard-0000\d.tar: .*its sound cannot be decoded"):
        examples._sound(collection, plan, runs, np.zeros((4, 3), np.int64))


def test_the_task_completes_batches_only_where_the_device_decodes():
    task = Pretrain(data=DATA, model=MODEL)
    assert task.finish(TrainConfig(), torch.device("cpu")) is None
    assert isinstance(task.finish(TrainConfig(decode_on="device"), torch.device("cpu")), Finisher)
