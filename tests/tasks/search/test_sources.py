from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

import reserve
from reserve.config import TrainConfig
from reserve.data.shards.read import Shard, ShardSet
from reserve.data.video_sound import TimeSpan
from reserve.errors import BadInput
from reserve.tasks.search.encoding import Window, encode_windows
from reserve.tasks.search.sources import ShardOfSet, VideoFile, find_sources, subsegment_times
from tests.helpers.shard_videos import make_video, prepare
from tests.helpers.small_shards import make_shard_set
from tests.tasks.search.small_index import write_video, write_videos
from tests.tasks.zero_shot.small_sets import small_model

TURN = threading.Lock()


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of three videos, and the set of shards made of them."""
    folder = tmp_path_factory.mktemp("prepared")
    for number in range(3):
        make_video(folder / "videos" / f"video {number}.mp4", number)
    prepare(folder / "videos", folder / "set")
    return folder


def test_a_segment_has_three_moments_and_a_short_one_fewer():
    np.testing.assert_allclose(subsegment_times(TimeSpan(5, 10, 7.5)), [[5, 20 / 3], [20 / 3, 25 / 3], [25 / 3, 10]])
    # Two seconds, heard in the middle of 5 s: from 1.5 to 3.5 s of them.
    short = subsegment_times(TimeSpan(10, 12, 11))
    np.testing.assert_allclose(short[:, 1] - short[:, 0], [1 / 6, 5 / 3, 1 / 6])
    one = subsegment_times(TimeSpan(10, 11, 10.5))
    np.testing.assert_allclose(one[:, 1] - one[:, 0], [0, 1, 0], atol=1e-12)


def test_the_moments_of_a_file_are_those_of_its_windows(model, tmp_path):
    path = write_video(tmp_path / "video.mp4", 46.2, 1)
    found = VideoFile(path).encode(model, TURN)
    moments = found.moments
    assert found.videos == (str(path),)
    assert (moments.video == 0).all()
    # 9 segments and a last one of 1.2 s, which has one moment in its middle.
    video = reserve.open_video(path)
    assert len(moments.start) == 3 * 9 + 1
    np.testing.assert_allclose(moments.start[:-1], np.arange(27) * 5 / 3)
    np.testing.assert_allclose(moments.end[-1], video.duration)
    np.testing.assert_array_equal(moments.sound_moment, np.arange(28))
    spans = video.segments(start=25.0, stop=video.duration)
    (second,) = encode_windows(model, [Window(video.images(spans, model.config.image_size), video.clips(spans))])
    np.testing.assert_allclose(moments.words[15:27], second.words[:4].reshape(-1, 64), atol=2e-3)
    np.testing.assert_allclose(moments.words[27], second.words[4, 1], atol=2e-3)
    np.testing.assert_allclose(moments.sounds[15:27], second.sounds[:4].reshape(-1, 64), atol=2e-3)


def test_a_file_without_sound_has_words_alone(model, tmp_path):
    moments = VideoFile(write_video(tmp_path / "silent.mp4", 12, 2, sound=False)).encode(model, TURN).moments
    assert len(moments.words) == 3 * 2 + 3
    assert moments.sounds.shape == (0, 64)
    assert len(moments.sound_moment) == 0


def test_a_files_key_changes_with_the_file(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"x")
    first = VideoFile(path).key()
    os.utime(path, ns=(1, 1))
    second = VideoFile(path).key()
    path.write_bytes(b"xy")
    os.utime(path, ns=(1, 1))
    assert len({first, second, VideoFile(path).key()}) == 3
    path.unlink()
    with pytest.raises(BadInput, match=r"video\.mp4: No such file"):
        VideoFile(path).key()


def test_shards_give_the_moments_of_the_videos_they_were_prepared_from(model, prepared):
    sources = find_sources([prepared / "set"], TrainConfig())
    segments = {}
    for part in ShardSet.open(prepared / "set").parts:
        shard = part.open()
        for number in range(len(shard.segment_counts())):
            segments[shard.video_id(number)] = shard.load(number)
    seen = set()
    for source in sources:
        found = source.encode(model, TURN)
        for number, name in enumerate(found.videos):
            stored, video = segments[name], reserve.open_video(prepared / "videos" / name)
            assert (stored.playback_speed == 1).all()
            spans = [TimeSpan(start, start + 5, start + 2.5) for start in stored.start.tolist()]
            (expected,) = encode_windows(model, [Window(video.images(spans, (32, 64)), video.clips(spans))])
            own = found.moments.video == number
            words, sounds = found.moments.words[own].astype(float), found.moments.sounds[own].astype(float)
            assert (words * expected.words.reshape(-1, 64)).sum(1).min() > 0.995
            assert (sounds * expected.sounds.reshape(-1, 64)).sum(1).min() > 0.995
            times = np.concatenate([subsegment_times(span) for span in spans])
            np.testing.assert_allclose(found.moments.start[own], times[:, 0])
            np.testing.assert_allclose(found.moments.end[own], times[:, 1])
            seen.add(name)
    assert seen == {"video 0.mp4", "video 1.mp4", "video 2.mp4"}


def test_a_sped_up_segment_covers_more_of_its_video(model, tmp_path, monkeypatch):
    make_shard_set(tmp_path / "set", (1,))
    (part,) = ShardSet.open(tmp_path / "set").parts
    speeds = np.array([1, 2, 3, 1, 1, 2, 1, 3], np.int32)
    load = Shard.load
    monkeypatch.setattr(
        Shard,
        "load",
        lambda self, video, start, stop: replace(load(self, video, start, stop), playback_speed=speeds[start:stop]),
    )
    stored = part.open().load(0, 0, 8)
    moments = ShardOfSet(part, "set", "digest").encode(model, TURN).moments
    length = 5 * stored.playback_speed[:, None] / 3 * np.ones(3)
    np.testing.assert_allclose((moments.end - moments.start).reshape(-1, 3), length)
    np.testing.assert_allclose(moments.start[::3], stored.start)


def test_a_damaged_sample_costs_its_video_alone(model, prepared, tmp_path, caplog):
    shutil.copytree(prepared / "set", tmp_path / "set")
    source = max(find_sources([tmp_path / "set"], TrainConfig()), key=lambda each: each.part.num_segments)
    tar = tmp_path / "set" / f"{source.part.name.rpartition('/')[2]}.tar"
    content = bytearray(tar.read_bytes())
    content[700] ^= 1  # in the first picture
    tar.write_bytes(content)
    before = len(ShardSet.open(prepared / "set").parts[0].open().segment_counts())
    found = source.encode(model, TURN)
    assert len(found.skipped) == 1
    assert "the video is left out" in caplog.text
    assert len(found.videos) == source.part.num_segments // 2 - 1
    assert before >= 1
    assert set(found.moments.video.tolist()) == set(range(len(found.videos)))


def test_places_are_files_folders_and_sets(prepared, tmp_path):
    folder = write_videos(tmp_path / "videos")
    extra = write_video(tmp_path / "extra.mp4", 6, 3).rename(tmp_path / "extra")
    found = find_sources([str(folder), extra, prepared / "set"], TrainConfig())
    files = {source.path.name for source in found if isinstance(source, VideoFile)}
    assert files == {"long.mp4", "silent.mp4", "noise.mp4", "extra"}
    shards = [source for source in found if isinstance(source, ShardOfSet)]
    assert {source.place for source in shards} == {str(prepared / "set")}
    assert len({source.identity for source in found}) == len(found)


def test_places_that_hold_nothing_are_refused(prepared, tmp_path):
    with pytest.raises(BadInput, match="no such file or folder"):
        find_sources([tmp_path / "absent"], TrainConfig())
    with pytest.raises(BadInput, match="no media files"):
        find_sources([tmp_path], TrainConfig())
    shutil.copytree(prepared / "set", tmp_path / "set")
    (tmp_path / "set" / "manifest.json").unlink()
    with pytest.raises(BadInput, match="its shards are not all prepared"):
        find_sources([tmp_path / "set"], TrainConfig())
