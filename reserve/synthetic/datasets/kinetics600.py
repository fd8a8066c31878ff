"""Small data sets in the format of Kinetics-600: labelled clips of ten seconds (SPEC 10.9).

A clip shows one scene for most of its time. Its label is what the scene's things do to be heard, which picture and
sound both tell. Validation and test have only labels of the training split.
"""

from __future__ import annotations

import random
from pathlib import Path

from reserve.synthetic.datasets.files import write_csv
from reserve.synthetic.datasets.scenes import Stories, Story, TimedScene, write_clip
from reserve.synthetic.datasets.wording import SOUNDING

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
CLIP_SECONDS = 10


def write(stories: Stories, out: Path, *, questions: int, seed: int) -> dict[str, int]:
    """Writes kinetics-600_{train,val,test}.csv and the clips, `questions` of each video but at most one a scene;
    returns the number of clips of each split. The last clip of a split has no sound."""
    written = {}
    labels: set[str] = set()
    for split, videos in stories.splits().items():
        rng = random.Random(f"kinetics600/{seed}/{split}")
        chosen = [(story, timed) for story in videos for timed in _choose(story, questions, labels, rng)]
        rows = []
        for number, (story, timed) in enumerate(chosen, 1):
            row = _row(story, timed, split)
            label, name, start, end, _ = row
            with story.open() as media:
                path = out / split / label / f"{name}_{start:06d}_{end:06d}.mp4"
                write_clip(media, start, end, path, has_sound=number < len(chosen))
            rows.append(row)
        write_csv(out / f"kinetics-600_{split}.csv", COLUMNS, rows)
        written[f"{split} clips"] = len(rows)
        labels |= {label for label, *_ in rows}
    return written


def _choose(story: Story, number: int, labels: set[str], rng: random.Random) -> list[TimedScene]:
    """Up to `number` scenes of a video, in order; only those with one of `labels` if it has such."""
    usable = [timed for timed in story.scenes if _label(timed) in labels] or story.scenes
    chosen = set(rng.sample(range(len(usable)), min(number, len(usable))))
    return [timed for index, timed in enumerate(usable) if index in chosen]


def _label(timed: TimedScene) -> str:
    return f"{SOUNDING[timed.scene.shape]} {timed.scene.shape}"


def _row(story: Story, timed: TimedScene, split: str) -> tuple[str, str, int, int, str]:
    latest = int(story.duration) - CLIP_SECONDS
    start = min(max(round(timed.middle - CLIP_SECONDS / 2), 0), latest)
    name = f"story_{story.split[0]}{story.index:04d}"  # eleven characters, as on YouTube
    return _label(timed), name, start, start + CLIP_SECONDS, split
