from __future__ import annotations

import json
import os
import shutil
import time

import filelock
import numpy as np
import pytest
import torch

from reserve.config import TrainConfig
from reserve.data.shards.read import Shard
from reserve.errors import BadInput
from reserve.tasks.search import MomentIndex, build_index
from reserve.tasks.search import build as build_module
from reserve.tasks.search.index import part_files
from reserve.tasks.search.parts import read_part
from reserve.tasks.search.sources import VideoFile
from tests.helpers.small_shards import make_shard_set
from tests.tasks.search.small_index import write_video, write_videos
from tests.tasks.zero_shot.small_sets import small_model


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture
def encoded(monkeypatch):
    """The names of files that are encoded."""
    names = []
    encode = VideoFile.encode

    def spy(self, *arguments):
        names.append(self.path.name)
        return encode(self, *arguments)

    monkeypatch.setattr(VideoFile, "encode", spy)
    return names


def contents(folder):
    return {path.name: path.read_bytes() for path in part_files(folder)}


def test_a_build_encodes_what_is_new_and_keeps_the_rest(model, videos, tmp_path, encoded, caplog):
    steps = []
    report = build_index([videos], tmp_path / "index", model, progress=lambda *done: steps.append(done))
    assert (report.added, report.kept, len(report.skipped)) == (2, 0, 1)
    assert "noise.mp4" in report.skipped[0]
    assert "noise.mp4" in caplog.text
    assert steps == [(1, 3), (2, 3), (3, 3)]
    # 47 s are 9 segments and one of 2 s, 12 s are 2 segments and one of 2 s; the second video has no sound.
    assert (report.moments, report.sounds) == (30 + 9, 30)
    first = contents(tmp_path / "index")
    encoded.clear()
    again = build_index([videos], tmp_path / "index", model)
    assert (again.added, again.kept, len(again.skipped)) == (0, 2, 1)
    assert encoded == ["noise.mp4"], "what could not be decoded is tried again"
    assert contents(tmp_path / "index") == first
    assert (again.moments, again.sounds) == (report.moments, report.sounds)


def test_a_changed_file_is_encoded_again(model, tmp_path, encoded):
    folder = tmp_path / "videos"
    for number in range(2):
        write_video(folder / f"{number}.mp4", 6, number)
    build_index([folder], tmp_path / "index", model)
    before = contents(tmp_path / "index")
    os.utime(folder / "1.mp4", ns=(1, 1))
    encoded.clear()
    report = build_index([folder], tmp_path / "index", model)
    assert (report.added, report.kept, encoded) == (1, 1, ["1.mp4"])
    assert contents(tmp_path / "index").keys() == before.keys()


def test_an_index_is_extended_and_mirrors_its_places_on_request(model, videos, tmp_path):
    index, (long, silent) = tmp_path / "index", (videos / "long.mp4", videos / "silent.mp4")
    build_index([long], index, model)
    build_index([silent], index, model)
    assert set(MomentIndex.open(index).videos) == {str(long), str(silent)}
    build_index([silent], index, model, mirror=True)
    assert MomentIndex.open(index).videos == [str(silent)]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_build_killed_between_parts_is_resumed(model, videos, tmp_path, encoded, monkeypatch, workers):
    write = build_module.write_part
    whole = tmp_path / "whole"
    build_index([videos], whole, model)

    def write_one(path, header, moments):
        if part_files(tmp_path / "index"):
            raise KeyboardInterrupt
        write(path, header, moments)

    monkeypatch.setattr(build_module, "write_part", write_one)
    with pytest.raises(KeyboardInterrupt):
        build_index([videos], tmp_path / "index", model, workers=workers)
    assert len(part_files(tmp_path / "index")) == 1
    monkeypatch.setattr(build_module, "write_part", write)
    encoded.clear()
    report = build_index([videos], tmp_path / "index", model)
    assert (report.added, report.kept) == (1, 1)
    assert contents(tmp_path / "index") == contents(whole)


def test_a_damaged_part_is_encoded_again(model, videos, tmp_path, caplog):
    build_index([videos / "silent.mp4"], tmp_path, model)
    (part,) = part_files(tmp_path)
    whole = part.read_bytes()
    part.write_bytes(whole[:100])
    assert build_index([videos / "silent.mp4"], tmp_path, model).added == 1
    assert "is damaged" in caplog.text
    assert part.read_bytes() == whole


def test_an_index_of_another_model_is_refused(model, videos, tmp_path):
    build_index([videos / "silent.mp4"], tmp_path, model)
    other = small_model()
    with torch.no_grad():
        other.joint_transformer.final_norm.bias += 1e-3
    with pytest.raises(ValueError, match="is an index made by another model"):
        build_index([videos / "silent.mp4"], tmp_path, other)


def test_a_folder_of_something_else_is_refused(model, videos, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(BadInput, match="is not empty and holds no index"):
        build_index([videos], tmp_path, model)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(BadInput, match=r"index\.json is no manifest of an index"):
        build_index([videos], tmp_path, model)


def test_videos_of_which_none_can_be_used_are_an_error(model, tmp_path):
    (tmp_path / "noise.mp4").write_bytes(b"noise")
    with pytest.raises(BadInput, match=r"none of the videos could be used: .*noise\.mp4"):
        build_index([tmp_path], tmp_path / "index", model)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        build_index([tmp_path], tmp_path / "index", model, workers=0)


def test_vectors_that_are_not_finite_are_an_error(videos, tmp_path):
    model = small_model()
    with torch.no_grad():
        model.head.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="vectors are not finite"):
        build_index([videos / "silent.mp4"], tmp_path, model)
    assert part_files(tmp_path) == []


def test_precision_is_that_of_the_config_in_every_thread(model, videos, tmp_path):
    vectors = []
    for name in ("float32", "bfloat16"):
        build_index([videos / "silent.mp4"], tmp_path / name, model, config=TrainConfig(precision=name), workers=2)
        vectors.append(read_part(part_files(tmp_path / name)[0])[1].words.astype(np.float32))
    difference = np.abs(vectors[0] - vectors[1]).max()
    assert 1e-4 < difference < 0.1


def test_names_that_are_not_unicode_are_kept(model, videos, tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    try:
        shutil.copy(videos / "silent.mp4", tmp_path / name)
    except OSError:
        pytest.skip("this file system takes names in Unicode alone")
    build_index([tmp_path / name], tmp_path / "index", model)
    (found,) = MomentIndex.open(tmp_path / "index").videos
    assert os.fsencode(found).endswith(b"caf\xe9.mp4")


def test_the_manifest_names_the_model_and_the_length_of_vectors(model, videos, tmp_path):
    build_index([videos / "silent.mp4"], tmp_path, model)
    manifest = json.loads((tmp_path / "index.json").read_text())
    assert (manifest["format"], manifest["hidden"]) == ("reserve-moments-1", 64)


def test_the_windows_of_a_video_are_counted_and_can_end_the_build(model, videos, tmp_path):
    counted = []
    path = write_video(tmp_path / "long.mp4", 90.0, 3)
    build_index([path], tmp_path / "index", model, windows=lambda done, total: counted.append((done, total)))
    assert counted == [(0, 3), (1, 3), (2, 3)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index([path], tmp_path / "other", model, windows=stop)
    assert part_files(tmp_path / "other") == []


class EndlessVideo:
    """A source that has windows for as long as it may go on."""

    place = ""

    def __init__(self) -> None:
        self.ended_early = False

    identity = "endless"

    def key(self):
        return "endless"

    def encode(self, model, turn, windows, known):
        try:
            for number in range(1000):
                windows(number, 1000)
                time.sleep(0.01)
        except Exception:
            self.ended_early = True
            raise


def test_an_interrupted_build_ends_at_the_next_window(model, videos, tmp_path, monkeypatch):
    endless = EndlessVideo()
    monkeypatch.setattr(build_module, "find_sources", lambda *_: [VideoFile(videos / "silent.mp4"), endless])

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index([], tmp_path, model, workers=2, progress=interrupt)
    assert endless.ended_early


def test_a_changed_file_that_cannot_be_decoded_is_no_longer_found(model, videos, tmp_path):
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder)
    build_index([folder], tmp_path / "index", model)
    (folder / "silent.mp4").write_bytes(b"noise")
    assert build_index([folder], tmp_path / "index", model).kept == 1
    assert MomentIndex.open(tmp_path / "index").videos == [str(folder / "long.mp4")]


def test_skipped_videos_of_a_shard_are_tried_again_alone(model, tmp_path, monkeypatch):
    make_shard_set(tmp_path / "set", (3,))
    load, loaded = Shard.load, []

    def damaged(self, video, *bounds):
        loaded.append(video)
        if video == 1:
            raise BadInput("damaged at first")
        return load(self, video, *bounds)

    whole = tmp_path / "whole"
    build_index([tmp_path / "set"], whole, model)
    monkeypatch.setattr(Shard, "load", damaged)
    for added, kept in ((2, 0), (0, 2)):
        report = build_index([tmp_path / "set"], tmp_path / "index", model)
        assert (report.added, report.kept, report.skipped) == (added, kept, ("damaged at first",))
    monkeypatch.setattr(Shard, "load", lambda self, video, *bounds: loaded.append(video) or load(self, video, *bounds))
    loaded.clear()
    report = build_index([tmp_path / "set"], tmp_path / "index", model)
    assert (report.added, report.kept, report.skipped, set(loaded)) == (1, 2, (), {1})
    assert contents(tmp_path / "index") == contents(whole)


def test_the_windows_of_a_shard_are_counted(model, tmp_path):
    make_shard_set(tmp_path / "set", (2,))
    counted = []
    build_index([tmp_path / "set"], tmp_path / "index", model, windows=lambda *done: counted.append(done))
    assert counted == [(number, len(counted)) for number in range(len(counted))]
    assert len(counted) >= 2


def test_two_builds_of_one_index_are_not_at_the_same_time(model, videos, tmp_path):
    build_index([videos / "silent.mp4"], tmp_path, model)
    with (
        filelock.FileLock(tmp_path / "lock"),
        pytest.raises(BadInput, match=r"another process adds to the index .*; try again"),
    ):
        build_index([videos / "silent.mp4"], tmp_path, model)
    assert build_index([videos / "silent.mp4"], tmp_path, model).kept == 1
