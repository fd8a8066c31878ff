"""Which videos questions are about, and how the learning rate is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning import finetuning
from benchmarks.learning.finetuning import DATA, SCRATCH, TUNING, finetune_all, link_videos
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


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(finetuning, "TRAINING_VIDEOS", 2)
    monkeypatch.setattr(finetuning, "TUNING_VIDEOS", 1)


@pytest.mark.usefixtures("few")
def test_the_rate_is_chosen_on_videos_that_are_neither_trained_on_nor_shown(tmp_path):
    videos = write_videos(tmp_path / "videos", train=5, heldout=3)
    chosen = link_videos(videos, tmp_path / "chosen")
    assert link_videos(videos, tmp_path / "chosen") == chosen  # a second time too
    assert stories(chosen / DATA / "train") == ["train 0", "train 1"]
    assert stories(chosen / DATA / "heldout") == ["heldout 0", "heldout 1", "heldout 2"]
    assert stories(chosen / TUNING / "heldout") == ["train 2"]
    subtitles = chosen / DATA / "heldout" / "story-2.en.vtt"
    assert subtitles.read_text() == "heldout 2"


@pytest.mark.usefixtures("few")
def test_too_few_videos_are_refused(tmp_path):
    videos = write_videos(tmp_path / "videos", train=2, heldout=1)
    with pytest.raises(SystemExit, match="must have 3 videos or more; it has 2"):
        link_videos(videos, tmp_path / "chosen")


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
    (tmp_path / DATA).mkdir()
    (tmp_path / DATA / finetuning.MADE).touch()
    found = finetune_all(tmp_path, {}, 3, 20, False)
    assert len(found) == len(done)
    others = [run.settings for run in done if run.settings["seed"] > 0]
    assert {settings["seed"] for settings in others} == {1, 2}
    assert {settings["learning_rate"] for settings in others} == {1e-3}
    assert sum(settings["start"] == SCRATCH for settings in others) == 4  # two tasks, two seeds
