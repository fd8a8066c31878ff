"""Small data sets in the format of LSMDC 2016's movie fill-in-the-blank (SPEC 10.12).

A clip is the middle of a scene, a sentence says what it shows, and one word of it is left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from reserve.fs import write_text_atomic
from reserve.synthetic.datasets.scenes import Stories, Story, TimedScene, write_clip
from reserve.synthetic.datasets.wording import stamp, things, where
from reserve.synthetic.narration import COUNTS

FILES = {
    "train": "LSMDC16_annos_training_FIB.csv",
    "val": "LSMDC16_annos_val_FIB.csv",
    "test": "LSMDC16_annos_test_FIB.csv",
}
BLANK = "_____"
CLIP_SECONDS = 5.0
FIRST_MOVIES = {"train": 1, "heldout": 1001}
"""Number of the first movie of each split; the name of a movie begins with its number."""


def write(stories: Stories, out: Path, *, questions: int, seed: int) -> dict[str, int]:
    """Writes the tab-separated tables, without a header, and the clips, with `questions` blanks in sentences about each
    video; returns the number of questions of each split. The last row of the validation split has no blank, as some of
    the data set have none."""
    written = {}
    for split, videos in stories.splits().items():
        rng = random.Random(f"lsmdc/{seed}/{split}")
        rows = [row for story in videos for row in _rows(story, out, questions, rng)]
        written[f"{split} questions"] = len(rows)
        if split == "val":
            *columns, _, answer = rows[-1]
            rows.append((*columns, columns[-1], answer))
        write_text_atomic(out / FILES[split], "".join("\t".join(row) + "\n" for row in rows))
    return written


def _rows(story: Story, out: Path, questions: int, rng: random.Random) -> Iterator[tuple[str, ...]]:
    """The rows of a video, its scenes in turn. Writes their clips."""
    movie = f"{FIRST_MOVIES[story.split] + story.index:04d}_STORY_{story.split.upper()}"
    clips: dict[TimedScene, tuple[str, ...]] = {}
    blanks: dict[TimedScene, list[str]] = {}
    order = rng.sample(story.scenes, len(story.scenes))
    with story.open() as media:
        for number in range(questions):
            timed = order[number % len(order)]
            if timed not in clips:
                start = max(timed.middle - CLIP_SECONDS / 2, timed.start)
                end = min(start + CLIP_SECONDS, timed.end)
                times = (stamp(start, "."), stamp(end, "."))
                name = f"{movie}_{times[0]}-{times[1]}"
                write_clip(media, start, end, out / movie / f"{name}.avi", container="avi")
                clips[timed] = (name, *times, *times, _sentence(timed))
            if not blanks.get(timed):
                blanks[timed] = rng.sample(_words(timed), len(_words(timed)))
            word = blanks[timed].pop()
            sentence = clips[timed][-1]
            yield (*clips[timed], " ".join(BLANK if part == word else part for part in sentence.split()), word)


def _sentence(timed: TimedScene) -> str:
    scene = timed.scene
    return f"We see {COUNTS[scene.count - 1]} {scene.colour} {things(scene)} {where(scene.place)} ."


def _words(timed: TimedScene) -> list[str]:
    """The words of the sentence that the clip decides."""
    scene = timed.scene
    return [COUNTS[scene.count - 1], scene.colour, things(scene), scene.place]
