"""Sets of shards as training data: the examples of the same videos' stores, refused where they do not fit."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from reserve.config import TrainConfig
from reserve.data.loader import BatchSampler, DamageLog, load_batches, shares_of
from reserve.data.shards.manifest import finish_set
from reserve.data.shards.records import write_settings
from reserve.errors import BadInput, DamagedSample
from reserve.tasks.pretrain import shard_sets
from reserve.tasks.pretrain.dataset import PretrainDataset
from reserve.tasks.pretrain.shard_sets import (
    KnownVideo,
    open_sets,
    part_sets,
    videos_among,
    videos_among_shards,
    videos_of,
)
from reserve.tasks.pretrain.task import Pretrain
from reserve.tasks.task import HeldOut
from tests.helpers.small_shards import make_shard_set, settings
from tests.helpers.small_stores import DATA, MODEL, make_dataset, tokenizer
from tests.tasks.pretrain.test_dataset import assert_same

CONFIG = TrainConfig(seed=3)


def shard_dataset(*folders: Path, weights=(), seed: int = 3) -> PretrainDataset:
    sets = part_sets([str(folder) for folder in folders], weights, DATA, CONFIG)
    return PretrainDataset(sets, tokenizer(), None, DATA, MODEL, seed=seed)


def stores_of(folder: Path) -> list[Path]:
    return sorted((folder.parent / f"{folder.name}-stores").glob("*.safetensors"))


def test_one_shard_gives_the_examples_of_the_videos(tmp_path):
    make_shard_set(tmp_path / "set", (5,), 7)
    shards, stores = shard_dataset(tmp_path / "set"), make_dataset(stores_of(tmp_path / "set"), seed=3)
    assert len(shards) == len(stores) == 8
    for key in [(epoch, index) for epoch in (0, 3) for index in range(8)]:
        assert_same(shards[key], stores[key])
    (one,), (other,) = shares_of(shards), shares_of(stores)
    samplers = (BatchSampler(shares_of(each), 3, seed=3) for each in (shards, stores))
    assert all(first == second for first, second, _ in zip(*samplers, range(20), strict=False))
    assert (one.examples, one.weight) == (other.examples, other.weight)


def test_each_shard_gives_the_examples_of_its_own_videos(tmp_path):
    """Random text too is said in the example's shard."""
    make_shard_set(tmp_path / "set", (3, 0, 2), 7)
    shards, stores = shard_dataset(tmp_path / "set"), stores_of(tmp_path / "set")
    first, second = make_dataset(stores[:3], seed=3), make_dataset(stores[3:], seed=3)
    assert (len(first), len(second), len(shards)) == (5, 3, 8)
    for index in range(8):
        part, within = (first, index) if index < 5 else (second, index - 5)
        collection, plan = part.plans[within]
        assert shards.plans[index][1] == plan
        assert (
            shards.plans[index][0].load(plan.ranges[0].video, 0, 1).frames
            == collection.load(plan.ranges[0].video, 0, 1).frames
        )
    assert_same(shards[0, 2], first[0, 2])


def test_a_damaged_sample_is_named_and_its_neighbours_are_not_hurt(tmp_path):
    make_shard_set(tmp_path / "set", (3,), 8)
    tar = tmp_path / "set" / "shard-00000.tar"
    data = bytearray(tar.read_bytes())
    data[1000] ^= 1
    tar.write_bytes(data)
    dataset = shard_dataset(tmp_path / "set")
    damaged = [index for index in range(len(dataset)) if dataset.plans[index][1].segments.count((0, 0))]
    assert len(damaged) == 1
    for index in range(len(dataset)):
        if index in damaged:
            with pytest.raises(DamagedSample, match=r"shard-00000.tar: video-0.mp4: segment 0 is damaged"):
                dataset[0, index]
        else:
            dataset[0, index]


def test_each_segment_is_used_once_in_an_epoch(tmp_path):
    make_shard_set(tmp_path / "set", (3, 0, 2), 7)
    dataset = shard_dataset(tmp_path / "set")
    keys = [key for batch in islice(BatchSampler(shares_of(dataset), 4), 2) for key in batch]
    used = Counter()
    for epoch, index in keys:
        assert epoch == 0
        collection, plan = dataset.plans[index]
        used.update((collection.name, *place) for place in plan.segments)
    assert len(used) == 8 * DATA.num_segments
    assert max(used.values()) == 1


@pytest.mark.parametrize("left", [0.5, 0.0])
def test_a_cut_tar_costs_only_what_was_cut_off(tmp_path, left):
    make_shard_set(tmp_path / "set", (3, 3), 8)
    tar = tmp_path / "set" / "shard-00001.tar"
    tar.write_bytes(tar.read_bytes()[: int(left * tar.stat().st_size)])
    dataset, log = shard_dataset(tmp_path / "set"), DamageLog()
    sampler = BatchSampler(shares_of(dataset), 4)
    loaded = list(islice(load_batches(dataset, sampler, list, num_workers=0, damage=log), 3))
    assert [len(batch) for batch in loaded] == [4, 4, 4]
    assert log.count >= (3 if left else 6)


@pytest.mark.parametrize("suffix", ["tar", "index"])
def test_a_vanished_shard_is_named(tmp_path, suffix):
    make_shard_set(tmp_path / "set", (2, 2), 8)
    (tmp_path / "set" / f"shard-00001.{suffix}").unlink()
    dataset = shard_dataset(tmp_path / "set")
    dataset[0, 0]
    with pytest.raises(BadInput, match=f"^{tmp_path}/set/shard-00001.{suffix}: .*No such file") as caught:
        dataset[0, 7]
    assert not isinstance(caught.value, DamagedSample)


def test_sets_of_other_settings_are_refused(tmp_path):
    make_shard_set(tmp_path / "set", (2,), 8)
    other = replace(DATA, fft_window_size=1024)
    with pytest.raises(ValueError, match=r"set was prepared with data.fft_window_size 1536; this run has 1024"):
        open_sets([str(tmp_path / "set")], other, CONFIG)
    # What decides examples, not segments, may differ.
    open_sets([str(tmp_path / "set")], replace(DATA, num_segments=8, mask_rate=0.5, languages=("de",)), CONFIG)


def test_a_set_given_twice_is_refused(tmp_path):
    """A batch could hold the same example twice."""
    make_shard_set(tmp_path / "set", (2,), 8)
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    with pytest.raises(BadInput, match=f"{tmp_path}/copy is the same set of shards as {tmp_path}/set"):
        open_sets([str(tmp_path / "set"), str(tmp_path / "copy")], DATA, CONFIG)


def test_an_unfinished_set_is_refused(tmp_path):
    make_shard_set(tmp_path / "set", (2,), 8)
    (tmp_path / "set" / "manifest.json").unlink()
    with pytest.raises(BadInput, match=f"^{tmp_path}/set: its shards are not all prepared"):
        Pretrain(shards=(str(tmp_path / "set"),), data=DATA, model=MODEL).prepare(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"videos": (Path("v"),), "shards": ("s",)}, "give videos or shards, not both"),
        ({"shards": ("s", "t"), "shard_weights": (1.0,)}, "shard_weights must be one a set of shards; got 1 for 2"),
        ({"shards": ("s",), "shard_weights": (0.0,)}, "shard_weights must be above 0 and finite; got 0"),
        ({"shard_weights": (1.0,)}, "shard_weights must be one a set of shards; got 1 for 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        Pretrain(**inputs, data=DATA, model=MODEL)


def test_folders_are_kept_as_absolute_paths_and_urls_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = Pretrain(shards=("a/b", "s3://bucket/set"), shard_weights=(1.0, 2.5), data=DATA, model=MODEL)
    stored = task.settings()
    assert stored["shards"] == [str(tmp_path / "a" / "b"), "s3://bucket/set"]
    assert Pretrain.from_settings(stored, "config.yaml:") == task


# Held-out videos that were trained on.


def test_videos_in_the_same_state_are_found_among_shards(tmp_path):
    make_shard_set(tmp_path / "train", (3, 2), 8)
    make_shard_set(tmp_path / "held_out", (1,), 8)
    (trained_on,), (held_out,) = (open_sets([str(tmp_path / name)], DATA, CONFIG) for name in ("train", "held_out"))
    videos = list(videos_of([held_out]))
    assert videos == [KnownVideo("video-0.mp4", "/videos/video-0.mp4", "key of video-0.mp4")]
    # Where their records are, which their ids decide: make_shard_set fills shards in order.
    number = shard_sets.shard_of("video-0.mp4", 2)
    expected = videos if number == 0 else []
    assert videos_among_shards(videos, [trained_on]) == expected
    assert videos_among_shards([replace(videos[0], file="/other.mp4")], [trained_on]) == [
        replace(each, file="/other.mp4") for each in expected
    ]
    assert not videos_among_shards([replace(videos[0], file="/other.mp4", key="other")], [trained_on])
    assert not videos_among_shards([replace(videos[0], video_id="other.mp4")], [trained_on])


def test_videos_of_the_same_file_are_found_among_videos(tmp_path):
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    held_out = [KnownVideo("link.mp4", str(tmp_path / "link.mp4")), KnownVideo("b.mp4", str(tmp_path / "b.mp4"))]
    assert videos_among(held_out, [KnownVideo("a.mp4", str(tmp_path / "a.mp4"))]) == held_out[:1]


def test_evaluation_on_training_shards_warns_and_works(tmp_path, caplog):
    make_shard_set(tmp_path / "set", (3,), 8)
    task = Pretrain(shards=(str(tmp_path / "set"),), data=DATA, model=MODEL)
    held_out = HeldOut([], tmp_path / "heldout", shards=(str(tmp_path / "set"),))
    with caplog.at_level(logging.WARNING):
        evaluation = task.evaluate(task.build_model(), held_out, config=CONFIG, step=0)
    assert "3 of the videos to evaluate on were trained on, such as /videos/video-0.mp4" in caplog.text
    assert len(evaluation.rankings) == 3
    assert evaluation.dataset.plans.num_videos == 3


@pytest.mark.parametrize("prepared_anew", [False, True])
def test_evaluation_needs_neither_the_training_shards_nor_records(tmp_path, caplog, prepared_anew):
    make_shard_set(tmp_path / "set", (3,), 8)
    if prepared_anew:
        make_shard_set(tmp_path / "gone", (3,), 8)
        before = settings(1)
        write_settings(tmp_path / "gone", replace(before, data=before.data | {"fft_window_size": 1024}))
        finish_set(tmp_path / "gone")
    (tmp_path / "set" / "shard-00000.json").unlink()
    task = Pretrain(shards=(str(tmp_path / "gone"),), data=DATA, model=MODEL)
    held_out = HeldOut([], tmp_path / "heldout", shards=(str(tmp_path / "set"),))
    task.evaluate(task.build_model(), held_out, config=CONFIG, step=0)
    assert "were trained on" not in caplog.text
