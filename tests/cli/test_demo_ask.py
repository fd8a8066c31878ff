from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from reserve.cli.app import main
from reserve.cli.demo_ask import _found_by_phrase, _found_in_own_video, _of_videos
from reserve.synthetic.datasets.scenes import TimedScene
from reserve.synthetic.scene_questions import phrase_of
from reserve.synthetic.story import COLOURS, SHAPES, Scene
from reserve.tasks.search import Moment, MomentIndex
from tests.tasks.zero_shot.small_sets import small_model, write_video


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    small_model().save_pretrained(folder)
    return folder


def test_answers_and_moments_stand_beside_what_is_true(narrated_videos, weights, tmp_path, capsys):
    pytest.importorskip("faiss", reason="searching needs faiss")
    held_out = narrated_videos / "heldout"
    arguments = ["demo-ask", str(held_out), f"--weights={weights}", f"--index={tmp_path / 'moments'}"]
    assert main([*arguments, "--device=cpu"]) == 0
    out = capsys.readouterr().out
    videos = len(list(held_out.glob("*.mp4")))
    assert len(re.findall(r"^\d .*%   <- true$", out, re.MULTILINE)) == 3
    assert re.search(rf"questions about all {videos} videos: \d+ of {3 * videos} right", out)
    moments = re.findall(r"^  -?0\.\d+  .*\.mp4, [\d.]+ to [\d.]+ s, which shows \w+ \w+ \w+ ", out, re.MULTILINE)
    assert len(moments) == 3
    assert re.search(r"^Such searches for \d+ phrases: for \d+ \([\d.]+%; chance [\d.]+%\) one", out, re.MULTILINE)
    assert len(re.findall(r'^  -?0\.\d+  [\d.]+ to [\d.]+ s for "\w+ \w+ \w+"(   <- true)?$', out, re.MULTILINE)) == 3
    assert re.search(r"the first moment is in the scene searched for in \d+ of \d+ \([\d.]+%; chance", out)


def test_phrases_count_as_found_by_what_is_shown():
    """Two videos of ten scenes of equal length, each of another colour and shape."""

    def scene(number: int) -> Scene:
        return Scene(list(COLOURS)[number], SHAPES[number], 1, "left", "sea")

    scenes = [TimedScene(scene(number), float(number), number + 1.0) for number in range(10)]
    stories = [SimpleNamespace(scenes=scenes)] * 2
    wanted = {phrase_of(scene(number)): scene(number) for number in range(4)}
    other = replace(scene(1), shape="moon")
    found = dict(
        zip(wanted, [[scene(0)] * 3, [other] * 3, [scene(9), scene(2), scene(9)], [scene(9)] * 3], strict=True)
    )
    said = _found_by_phrase(stories, wanted, found)
    assert "for 4 phrases: for 2 (50.0%; chance 27.1%) one" in said  # 1 - 0.9 ** 3
    assert said.endswith("58.3% of the moments show its colour (chance 10.0%)")  # 7 of 12


def test_scenes_count_as_found_in_their_own_video_by_time():
    """The same thing shown a second time is another scene."""
    first, second, last = (
        TimedScene(Scene("red", shape, 1, "left", "sea"), float(at), at + 2.0)
        for at, shape in ((0, "star"), (2, "star"), (4, "moon"))
    )
    story = SimpleNamespace(scenes=[first, second, last])
    said = _found_in_own_video([(story, first, first), (story, first, second), (story, last, last)])
    assert "in 2 of 3 (66.7%; chance 33.3%)" in said


def test_an_index_of_ones_own_keeps_its_other_videos(narrated_videos, weights, tmp_path, capsys, monkeypatch):
    pytest.importorskip("faiss", reason="searching needs faiss")
    monkeypatch.chdir(narrated_videos)
    other = write_video(tmp_path / "other.mp4", 45)
    index = [f"--index={tmp_path / 'moments'}", f"--weights={weights}", "--device=cpu"]
    assert main(["search", str(other), "a red circle", *index]) == 0
    capsys.readouterr()
    assert main(["demo-ask", "heldout", *index]) == 0
    moments = re.findall(r"^  -?0\.\d+  (\S+), [\d.]+ to", capsys.readouterr().out, re.MULTILINE)
    assert len(moments) == 3
    assert {Path(name).parent for name in moments} == {Path("heldout")}
    assert str(other) in MomentIndex.open(tmp_path / "moments").videos


def test_moments_of_other_videos_are_passed_over():
    ranked = [Moment(f"{name}.mp4", 0.0, 1.0, 1.0) for name in "xxxxxaxxaxxxx"]
    found = _of_videos({"a.mp4"}, 3, lambda most: ranked[:most])
    assert [moment.video for moment in found] == ["a.mp4", "a.mp4"]


def test_other_folders_are_refused(weights, tmp_path, capsys):
    assert main(["demo-ask", str(tmp_path), f"--weights={weights}"]) == 1
    assert "must be one of the folders that `reserve demo-data` makes: train, heldout" in capsys.readouterr().err
