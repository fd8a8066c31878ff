from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from reserve.cli.app import main
from reserve.cli.demo_ask import Shown, _found_in_all, _found_in_own
from reserve.synthetic.datasets.scenes import TimedScene, read_folder
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
    assert len(re.findall(r"^  the thing searched for: \d+ of \d+ right, [\d.]+% \(chance", out, re.MULTILINE)) == 1
    assert len(re.findall(r'^  -?0\.\d+  [\d.]+ to [\d.]+ s for "\w+ \w+ \w+"(   <- true)?$', out, re.MULTILINE)) == 3
    assert re.search(r"in the scene searched for:\n  \d+ of \d+ right, [\d.]+% \(chance", out)


def scene(number: int, shape: int | None = None) -> Scene:
    return Scene(list(COLOURS)[number], SHAPES[number if shape is None else shape], 1, "left", "sea")


@pytest.fixture
def stories() -> list[SimpleNamespace]:
    """Two videos of ten scenes of equal length, each of another colour and shape."""
    scenes = [TimedScene(scene(number), float(number), number + 1.0) for number in range(10)]
    return [SimpleNamespace(scenes=scenes)] * 2


def shown(video: int, *scenes: Scene) -> list[Shown]:
    return [Shown(Moment("a.mp4", 0, 1, 0.5), video, TimedScene(one, 0.0, 1.0)) for one in scenes]


def test_a_search_is_right_where_one_of_its_moments_shows_the_phrase(stories):
    wanted = [
        (0, stories[0].scenes[0]),
        (0, stories[0].scenes[1]),
        (1, stories[1].scenes[2]),
        (1, stories[1].scenes[3]),
    ]
    found = [
        shown(0, scene(0), scene(9), scene(9)),
        shown(1, scene(1, shape=7), scene(9), scene(9)),
        shown(0, scene(9), scene(9), scene(2)),  # in another video
        shown(0, scene(9), scene(8), scene(7)),
    ]
    phrase, colour = _found_in_all(stories, wanted, found).splitlines()[1:]
    assert phrase.startswith("  the thing searched for: 2 of 4 right, 50.0% (95% interval")
    assert phrase.endswith("chance 27.1%)")  # 1 - 0.9 ** 3
    assert colour.startswith("  a thing of its colour: 3 of 4 right")


def test_scenes_count_as_found_in_their_own_video_by_time():
    """The same thing shown a second time is another scene."""
    first, second, last = (
        TimedScene(Scene("red", shape, 1, "left", "sea"), float(at), at + 2.0)
        for at, shape in ((0, "star"), (2, "star"), (4, "moon"))
    )
    story = SimpleNamespace(scenes=[first, second, last])
    found = [Shown(Moment("a.mp4", 0, 1, 0.5), 0, timed) for timed in (first, second, last)]
    said = _found_in_own([story], [(0, first), (0, first), (0, last)], found)
    assert said.endswith("2 of 3 right, 66.7% (chance 33.3%)")


def test_videos_that_the_index_skips_are_named(narrated_videos, weights, tmp_path, capsys, monkeypatch):
    report = SimpleNamespace(skipped=("story-0000.mp4: damaged",))
    monkeypatch.setattr("reserve.tasks.search.build_index", lambda *args, **settings: report)
    assert main(["demo-ask", str(narrated_videos / "heldout"), f"--weights={weights}", f"--index={tmp_path}"]) == 1
    assert "the index lacks videos: story-0000.mp4: damaged" in capsys.readouterr().err


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


def test_the_working_folder_may_be_one_of_the_two(narrated_videos, monkeypatch):
    monkeypatch.chdir(narrated_videos / "heldout")
    assert [story.path.parent for story in read_folder(Path())] == [narrated_videos / "heldout"]


def test_other_folders_are_refused(weights, tmp_path, capsys):
    assert main(["demo-ask", str(tmp_path), f"--weights={weights}"]) == 1
    assert "must be one of the folders that `reserve demo-data` makes: train, heldout" in capsys.readouterr().err
