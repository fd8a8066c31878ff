import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reserve.data.decode import choose_file_decoder
from reserve.data.images import encode_jpeg
from reserve.data.sources.transcripts.loading import load_transcript
from reserve.synthetic.datasets import tvqa
from reserve.synthetic.datasets.scenes import Story, TimedScene
from reserve.synthetic.datasets.tvqa import FILES, SHOWS
from reserve.synthetic.story import is_held_out
from tests.helpers.scene_truth import holds, mentioned
from tests.helpers.value_types import types_of


@pytest.fixture(scope="module")
def folder(task_data_sets) -> Path:
    return task_data_sets / "tvqa"


def records(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / "tvqa_qa_release" / FILES[split]).read_text().splitlines()]


def all_records(folder: Path) -> list[dict]:
    return [record for split in FILES for record in records(folder, split)]


def story_and_scenes(record: dict, stories) -> tuple[Story, tuple[TimedScene, ...]]:
    """The video of a question's clip and the scenes that the clip has of it."""
    season, episode, clip = map(int, re.search(r"s(\d+)e(\d+)_seg01_clip_(\d+)$", record["vid_name"]).groups())
    video = list(stories.splits().values())[season - 1][episode - 1]
    return video, video.scenes[3 * clip : 3 * clip + 3]


def frame_files(folder: Path, record: dict) -> list[Path]:
    show = SHOWS[record["show_name"]]
    return sorted((folder / "tvqa_frames" / "frames_hq" / f"{show}_frames" / record["vid_name"]).iterdir())


def test_fields_are_those_of_the_genuine_samples(folder, shared_dir):
    annotations = shared_dir / "realdata/annotations/tvqa"
    train = json.loads((annotations / "tvqa_train.sample.jsonl").read_text())
    test = [json.loads(line) for line in (annotations / "tvqa_test_public.head.jsonl").read_text().splitlines()]
    # The genuine training sample lacks show_name, which the released script reads.
    labelled = tuple(sorted((*types_of(train), ("show_name", "str"))))
    assert {types_of(record) for split in ("train", "val") for record in records(folder, split)} == {labelled}
    assert {types_of(record) for record in records(folder, "test")} == {types_of(record) for record in test}
    assert list(records(folder, "test")[0]) == list(test[0])
    assert {record["show_name"] for record in all_records(folder)} <= {record["show_name"] for record in test}


def test_clips_are_of_several_series_and_all_ids_differ(folder):
    found = all_records(folder)
    assert len({record["show_name"] for record in found}) >= 2
    assert [record["qid"] for record in found] == list(range(len(found)))
    for record in found:
        short = SHOWS[record["show_name"]]
        assert record["vid_name"].startswith("s0" if short == "bbt" else f"{short}_s0")


def test_frames_show_the_clip_three_times_a_second(folder, stories):
    for record in all_records(folder)[::3]:
        story, scenes = story_and_scenes(record, stories)
        files = frame_files(folder, record)
        assert [path.name for path in files] == [f"{number:05d}.jpg" for number in range(1, len(files) + 1)]
        assert abs(len(files) / 3 - (scenes[-1].end - scenes[0].start)) < 0.34
        times = [scenes[0].start + number / 3 + 0.01 for number in range(len(files))]
        with story.open() as media:
            for path, frame in list(zip(files, media.frames(times), strict=True))[:: len(files) // 5]:
                assert path.read_bytes() == encode_jpeg(frame)


def test_sound_and_subtitles_are_those_of_the_clip(folder, stories):
    for record in all_records(folder):
        _, scenes = story_and_scenes(record, stories)
        short = SHOWS[record["show_name"]]
        path = folder / "audios" / ("bbt_new" if short == "bbt" else short) / f"{short}_audios"
        with choose_file_decoder().open(path / f"{record['vid_name']}.mp3") as media:
            sound = media.soundtrack().waveform
        assert abs(len(sound) / 22050 - (scenes[-1].end - scenes[0].start)) < 0.2
        assert np.sqrt(np.mean(sound**2)) > 0.03
        words = load_transcript(folder / "tvqa_subtitles" / f"{record['vid_name']}.srt")
        for timed in scenes:
            start, end = timed.start - scenes[0].start, timed.end - scenes[0].start
            named = mentioned(" ".join(word.text for word in words if start <= word.start and word.end <= end))
            assert named["shape"] == {timed.scene.shape}


def test_only_the_right_choice_holds_at_the_moment_asked_about(folder, stories):
    for split in ("train", "val"):
        for record in records(folder, split):
            _, scenes = story_and_scenes(record, stories)
            asked = mentioned(record["q"])
            meant = [
                timed for timed in scenes if all(not v or v == {getattr(timed.scene, k)} for k, v in asked.items())
            ]
            assert len(meant) == 1, "the question fits one scene of the clip"
            truths = [holds(record[f"a{number}"], meant[0].scene) for number in range(5)]
            assert truths == [number == record["answer_idx"] for number in range(5)]
            if record["ts"] != "nan-nan":
                start, end = map(float, record["ts"].split("-"))
                expected = (meant[0].start - scenes[0].start, meant[0].end - scenes[0].start)
                assert (start, end) == pytest.approx(expected, abs=0.006)


def test_no_choice_goes_with_a_pair_that_training_never_shows(folder, stories):
    for record in records(folder, "train") + records(folder, "val"):
        texts = [record["q"] + record[f"a{number}"] for number in range(5)]
        for named in map(mentioned, texts):
            assert not any(is_held_out(colour, shape) for colour in named["colour"] for shape in named["shape"])


def test_every_fifth_question_does_not_say_when(folder):
    assert [record["qid"] for record in all_records(folder) if record["ts"] == "nan-nan"] == [4, 9, 14, 19]
    assert all(re.fullmatch(r"\d+\.\d\d-\d+\.\d\d|nan-nan", record["ts"]) for record in all_records(folder))


def test_right_answers_are_balanced_over_positions(short_stories, tmp_path):
    tvqa.write(short_stories, tmp_path, questions=20, seed=0)
    assert Counter(record["answer_idx"] for record in records(tmp_path, "train")) == dict.fromkeys(range(5), 4)
