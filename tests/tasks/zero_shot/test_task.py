from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from reserve.data.video_sound import TimeSpan
from reserve.errors import BadInput
from reserve.tasks.scores import TaskScores
from reserve.tasks.zero_shot import task as task_module
from reserve.tasks.zero_shot.task import Answer, Question, ZeroShotTask, closing_statement, equal_segments


@dataclass(frozen=True)
class Weather(ZeroShotTask[Question]):
    """What was the weather?"""

    name = "weather"
    video_source = "the sky"

    def read_questions(self):
        return [Question("a", "clip"), Question("b", "clip"), Question("c", "other")]

    @property
    def options(self):
        return ["rain", "sun"]

    def query(self, question, video):
        return closing_statement(equal_segments(0, video.duration, 2), "<|MASK|>")

    def scores(self, answers):
        return TaskScores(self.name, self.split, (), self.failure_notes(answers))

    def predictions(self, answers):
        return [answer.failure for answer in answers]


def test_threads_use_the_models_device(monkeypatch):
    seen = []
    monkeypatch.setattr("torch.cuda.set_device", seen.append)
    task_module._use_device(torch.device("cuda", 1))
    task_module._use_device(torch.device("cpu"))
    assert seen == [torch.device("cuda", 1)]


@pytest.mark.parametrize(
    ("start", "end", "seconds", "bounds"),
    [
        (0, 9, 3, [0, 3, 6, 9]),
        (1, 9.5, 3, [1, 5.25, 9.5]),
        (0, 2, 3, [0, 2]),
        (0, 80, 3, [0, 10, 20, 30, 40, 50, 60, 70, 80]),
        (0.3, 0.9, 0.2, [0.3, 0.5, 0.7, 0.9]),  # 0.6 / 0.2 is less than 3 in floating point
    ],
)
def test_segments_are_equal_and_of_the_least_length(start, end, seconds, bounds):
    found = equal_segments(start, end, seconds)
    assert [span.start for span in found] == bounds[:-1]
    assert [span.end for span in found] == bounds[1:]
    assert all(span.mid == pytest.approx((span.start + span.end) / 2, abs=1e-3) for span in found)


def test_all_segments_but_the_last_are_heard():
    spans = (TimeSpan(0, 1, 0.5), TimeSpan(1, 2, 1.5))
    assert closing_statement(spans, "x").texts == (None, "x")
    assert closing_statement(spans[:1], "x").texts == ("x",)


def test_a_limit_takes_the_first_questions(tmp_path):
    assert [question.key for question in Weather(tmp_path, limit=2).questions] == ["a", "b"]
    assert len(Weather(tmp_path, limit=9).questions) == 3


def test_videos_are_found_by_name_in_any_folder(tmp_path):
    for path in ("videos/x/clip.MP4", "videos/a/clip.mp4", "videos/other.txt", "elsewhere/other.mkv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    # Only the folder of the videos is searched; of two with one name, the first in order counts.
    assert Weather(tmp_path).video_files == {"clip": tmp_path / "videos/a/clip.mp4"}
    assert Weather(tmp_path, videos=tmp_path / "elsewhere").video_files.keys() == {"other"}
    assert Weather(tmp_path / "elsewhere").video_files.keys() == {"other"}
    with pytest.raises(BadInput, match="none is not a folder: it must hold the videos, from the sky"):
        Weather(tmp_path, videos=tmp_path / "none").video_files  # noqa: B018


def test_the_check_counts_questions_options_and_videos(tmp_path):
    (tmp_path / "clip.mp4").touch()
    check = Weather(tmp_path).check_folder()
    assert check.lines == ["weather, val: 3 questions", "2 options", "videos: 1 of 2"]
    assert check.problems == [f"1 of 2 videos are missing ({tmp_path / 'other'}); get them from the sky"]


def test_notes_count_the_reasons_of_failures(tmp_path):
    task = Weather(tmp_path)
    right = Answer(np.zeros(2))
    assert task.failure_notes([right]) == ()
    failures = [Answer(None, reason) for reason in ("d", "a", "b", "b", "c", "b", "a")]
    assert task.failure_notes([right, *failures]) == (
        "7 of 8 questions have no answer and count as wrong: b (3); a (2); d (1); …",
    )


def test_the_split_is_checked(tmp_path):
    with pytest.raises(ValueError, match="split must be one of train, val, test; got 'dev'"):
        Weather(tmp_path, split="dev")
