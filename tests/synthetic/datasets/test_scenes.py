import json
import shutil

import numpy as np
import pytest

from reserve.data.decode import choose_file_decoder
from reserve.errors import BadInput
from reserve.synthetic.datasets.scenes import CLIP_FRAME_RATE, frames_between, read_stories, write_clip
from reserve.synthetic.story import COLOURS, plan_story

MADE_WITH_SEED = 3  # as tests/conftest.py says


def test_scenes_are_those_that_were_drawn(stories):
    assert (len(stories.train), len(stories.heldout)) == (2, 1)
    for story in (*stories.train, *stories.heldout):
        planned = plan_story(MADE_WITH_SEED, story.split, story.index, len(story.scenes))
        assert [timed.scene for timed in story.scenes] == planned
        assert story.scenes[0].start == 0
        ends = [timed.end for timed in story.scenes]
        assert ends[:-1] == [timed.start for timed in story.scenes[1:]]
        assert story.duration == ends[-1] >= 92


def test_a_single_held_out_video_serves_validation_and_test(stories):
    splits = stories.splits()
    assert splits["train"] == stories.train
    assert splits["val"] == splits["test"] == stories.heldout


def test_further_held_out_videos_are_shared_out(stories):
    four = type(stories)(stories.train, stories.heldout * 4)
    assert [len(videos) for videos in four.splits().values()] == [2, 2, 2]


def test_the_first_frame_is_of_the_scene(stories):
    story = stories.train[0]
    with story.open() as media:
        for timed in story.scenes[:4]:
            frame = next(iter(frames_between(media, timed.start, timed.end, 10))).astype(int)
            assert (np.abs(frame - COLOURS[timed.scene.colour]).max(axis=-1) < 40).mean() > 0.02


@pytest.mark.parametrize(("container", "has_sound"), [("mp4", True), ("mp4", False), ("avi", True)])
def test_clips_have_the_frames_and_sound_of_their_time(stories, tmp_path, container, has_sound):
    story = stories.train[0]
    start, end = story.scenes[1].start, story.scenes[1].start + 3
    path = tmp_path / "folder" / f"clip.{container}"
    with story.open() as media:
        write_clip(media, start, end, path, has_sound=has_sound, container=container)
        frames = [frame.copy() for frame in frames_between(media, start, end, CLIP_FRAME_RATE)]
        sound = media.sound(start, end)
    with choose_file_decoder().open(path) as clip:
        assert len(clip.info.audio) == has_sound
        cut = list(frames_between(clip, 0, 3, CLIP_FRAME_RATE))
        assert len(cut) == len(frames) == 3 * CLIP_FRAME_RATE
        for one, other in zip(cut, frames, strict=True):
            assert np.abs(one.astype(int) - other).mean() < 6
        if has_sound:
            heard = clip.soundtrack().waveform
            assert abs(len(heard) - len(sound)) < 0.15 * 22050
            length = min(len(heard), len(sound)) - 2205
            shifts = range(0, 2200, 11)
            assert max(np.corrcoef(heard[shift : shift + length], sound[:length])[0, 1] for shift in shifts) > 0.5


def test_a_folder_without_videos_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"train has no videos; make some with `reserve demo-data"):
        read_stories(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda info: info.pop("scenes"), lambda info: info["scenes"].pop(), lambda info: info["scenes"].clear()]
)
def test_metadata_without_scenes_is_named(narrated_videos, tmp_path, damage):
    for split in ("train", "heldout"):
        (tmp_path / split).mkdir()
        for path in (narrated_videos / split).glob("story-0000.*"):
            shutil.copyfile(path, tmp_path / split / path.name)
    path = tmp_path / "heldout" / "story-0000.info.json"
    info = json.loads(path.read_text())
    damage(info)
    path.write_text(json.dumps(info))
    with pytest.raises(BadInput, match=r"story-0000.info.json does not list the video's scenes"):
        read_stories(tmp_path)
