"""Which videos questions are about, and how the learning rate is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning import finetuning
from benchmarks.learning.finetuning import DATA_SETS, SCRATCH, SHOWN, TUNING, finetune_all, link_videos, prepare
from benchmarks.learning.runs import Run


def write_videos(folder: Path, train: int, heldout: int) -> Path:
    for split, count in (("train", train), ("heldout", heldout)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            for ending in ("mp4", "en.vtt", "info.json"):
                (folder / split / f"story-{number}.{ending}").write_text(f"{split} {number}")
    return folder


def stories(folder: Path) -> list[str]:
    """What the videos of a folder are, from their contents."""
    return sorted(path.read_text() for path in folder.glob("*.mp4"))


def test_the_rate_is_chosen_on_held_out_videos_that_are_not_shown(tmp_path):
    chosen = tmp_path / "chosen"
    link_videos(write_videos(tmp_path / "videos", train=2, heldout=5), chosen)
    assert stories(chosen / SHOWN / "train") == ["train 0", "train 1"]
    shown, choose = (stories(chosen / data / "heldout")[::2] for data in (SHOWN, TUNING))  # those of the split val
    assert shown == ["heldout 0", "heldout 2", "heldout 4"]
    assert choose == ["heldout 1", "heldout 3"]
    assert (chosen / SHOWN / "heldout" / "story-2.en.vtt").read_text() == "heldout 2"


def test_a_single_held_out_video_is_refused(tmp_path):
    videos = write_videos(tmp_path / "videos", train=2, heldout=1)
    with pytest.raises(SystemExit, match="must have 2 videos or more; it has 1"):
        link_videos(videos, tmp_path / "chosen")


def test_data_sets_are_made_again_when_videos_change(tmp_path, monkeypatch):
    """Without what is left of those before."""
    made: list[Path] = []
    cut: list[Path] = []

    def make(task, videos, out, questions):
        out.mkdir(parents=True)
        made.append(out)

    monkeypatch.setattr(finetuning, "make_data_set", make)
    monkeypatch.setattr(finetuning, "keep_colours", lambda task, data: cut.append(data))
    videos = write_videos(tmp_path / "videos", train=2, heldout=2)
    prepare(videos, tmp_path, 20)
    assert len(made) == 5  # three to show, two to choose the rate
    assert cut == [data for data in made if data.name != "star"]
    (made[0] / "frame of an old video").touch()
    prepare(videos, tmp_path, 20)
    assert len(made) == 5
    (videos / "heldout" / "story-1.info.json").write_text("other scenes")
    prepare(videos, tmp_path, 20)
    assert len(made) == 10
    assert not (made[0] / "frame of an old video").exists()
    assert stories(videos / "heldout") == ["heldout 0", "heldout 1"]


def test_every_seed_has_the_rate_that_the_first_one_chose(tmp_path, monkeypatch):
    """The best rate by the questions that choose it, not by those that are shown."""
    done: list[Run] = []

    def finished(module, runs, again):
        done.extend(runs)
        found = []
        for run in runs:
            rate, chooses = run.settings["learning_rate"], run.settings["tuning"] is not None
            right = {"x": [10.0 if rate == 1e-3 else 5.0]}
            shown = {"settings": run.settings, "asked": [10], "right": {"x": [10 - right["x"][0]]}}
            found.append(shown | ({"tuning": {"asked": [10], "right": right}} if chooses else {}))
        return found

    monkeypatch.setattr(finetuning, "finish_all", finished)
    monkeypatch.setattr(finetuning, "RATES", dict.fromkeys(("tvqa", "vcr"), (3e-4, 1e-3, 3e-3)))
    (tmp_path / DATA_SETS).mkdir()
    (tmp_path / DATA_SETS / finetuning.MADE).touch()
    found = finetune_all(tmp_path, {}, 3, 20, False)
    assert len(found) == len(done)
    others = [run.settings for run in done if run.settings["seed"] > 0]
    assert {settings["seed"] for settings in others} == {1, 2}
    assert {settings["learning_rate"] for settings in others} == {1e-3}
    assert sum(settings["start"] == SCRATCH for settings in others) == 4  # two tasks, two seeds
