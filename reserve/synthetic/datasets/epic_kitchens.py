"""Small data sets in the format of EPIC-KITCHENS-100's action anticipation (SPEC 10.11).

An action is a motion (verb) of a shape (noun). It begins some seconds into its scene, so that the picture before it
shows what is about to happen. Only held-out videos are used: the task is evaluated without training.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from reserve.synthetic.datasets.files import write_csv
from reserve.synthetic.datasets.scenes import CLIP_FRAME_RATE, Stories, Story, TimedScene, write_clip
from reserve.synthetic.datasets.wording import MOVES, moves, stamp, things
from reserve.synthetic.narration import COUNTS
from reserve.synthetic.story import MOTIONS, SHAPES

VALIDATION_COLUMNS = (
    "narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp", "stop_timestamp",
    "start_frame", "stop_frame", "narration", "verb", "verb_class", "noun", "noun_class", "all_nouns",
    "all_noun_classes",
)  # fmt: skip
TEST_COLUMNS = VALIDATION_COLUMNS[:8]
CLASS_COLUMNS = ("id", "key", "instances", "category")
VERBS = tuple(MOVES[motion].replace(" ", "-") for motion in MOTIONS)
"""Verb of each motion, words joined by hyphens as in "put-down"."""
# Three nouns of two words, written as in "board:chopping".
_COMPOUNDS = {"cross": "cross:buzzing", "ring": "ring:trilling", "arrow": "arrow:ticking"}
NOUNS = tuple(_COMPOUNDS.get(shape, shape) for shape in SHAPES)
"""Noun of each shape."""
PARTICIPANTS = ("P01", "P02")
UNSEEN = ("P02",)
"""Each video is cut in two, one half for each participant; the second is new to models trained on the first."""
LEAD_SECONDS = 4.5
"""An action begins this long into its scene. What is observed ends a second before it (SPEC 10.11)."""
ACTION_SECONDS = 2.0


def write(stories: Stories, out: Path, *, questions: int, seed: int) -> dict[str, int]:
    """Writes the tables of the validation and test splits, the classes, and the videos, with `questions` actions of
    each video but at most one a scene; returns the number of actions of each split."""
    rng = random.Random(f"epic-kitchens/{seed}")
    for story in stories.heldout:
        _write_videos(story, out)
    rows, test_rows = (
        [row for story in stories.splits()[split] for row in _actions_of(story, questions, rng)]
        for split in ("val", "test")
    )
    _write_classes(out, rows)
    _write_rows(out / "EPIC_100_test_timestamps.csv", TEST_COLUMNS, test_rows)
    _write_rows(out / "EPIC_100_validation.csv", VALIDATION_COLUMNS, rows)
    return {"val actions": len(rows), "test actions": len(test_rows)}


def _write_rows(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    write_csv(path, columns, ([row[column] for column in columns] for row in rows))


def _write_classes(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the verbs, nouns and actions, and which are rare or unseen in the validation split `rows`."""
    for name, keys, column in (("verb", VERBS, "verb_class"), ("noun", NOUNS, "noun_class")):
        classes = [(number, key, [key], "synthetic") for number, key in enumerate(keys)]
        write_csv(out / f"EPIC_100_{name}_classes.csv", CLASS_COLUMNS, classes)
        write_csv(out / f"EPIC_100_tail_{name}s.csv", (name,), _tail([row[column] for row in rows], len(keys)))
    unseen = [(participant,) for participant in UNSEEN]
    write_csv(out / "EPIC_100_unseen_participant_ids_validation.csv", ("participant_id",), unseen)
    pairs = product(enumerate(VERBS), enumerate(NOUNS))
    actions = [(number, verb, noun, f"{a} {b}") for number, ((verb, a), (noun, b)) in enumerate(pairs)]
    write_csv(out / "actions.csv", ("id", "verb", "noun", "action"), actions)


def _halves(story: Story) -> Iterator[tuple[str, str, tuple[TimedScene, ...]]]:
    """Participant, video id and scenes of each half of a video."""
    middle = len(story.scenes) // 2
    for participant, scenes in zip(PARTICIPANTS, (story.scenes[:middle], story.scenes[middle:]), strict=True):
        yield participant, f"{participant}_{story.index + 1:02d}", scenes


def _write_videos(story: Story, out: Path) -> None:
    with story.open() as media:
        for participant, video, scenes in _halves(story):
            write_clip(media, scenes[0].start, scenes[-1].end, out / participant / "videos" / f"{video}.MP4")


def _actions_of(story: Story, questions: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """The rows of a video's two halves."""
    chosen = rng.sample(story.scenes, min(questions, len(story.scenes)))
    for participant, video, scenes in _halves(story):
        for number, timed in enumerate(timed for timed in scenes if timed in chosen):
            yield _row(participant, video, number, timed, scenes[0].start)


def _row(participant: str, video: str, number: int, timed: TimedScene, video_start: float) -> dict[str, Any]:
    """One action. Short scenes have it nearer to their start."""
    scene = timed.scene
    begin = timed.start - video_start
    start = round(begin + min(LEAD_SECONDS, (timed.end - timed.start) * 0.7), 2)
    stop = round(min(start + ACTION_SECONDS, timed.end - video_start), 2)
    verb, noun = MOTIONS.index(scene.motion), SHAPES.index(scene.shape)
    return {
        "narration_id": f"{video}_{number}",
        "participant_id": participant,
        "video_id": video,
        "narration_timestamp": stamp(start, ":"),
        "start_timestamp": stamp(start, ":", 2),
        "stop_timestamp": stamp(stop, ":", 2),
        "start_frame": max(int(start * CLIP_FRAME_RATE), 1),
        "stop_frame": int(stop * CLIP_FRAME_RATE),
        "narration": f"{COUNTS[scene.count - 1]} {things(scene)} {moves(scene.motion, scene)}",
        "verb": VERBS[verb],
        "verb_class": verb,
        "noun": NOUNS[noun],
        "noun_class": noun,
        "all_nouns": [NOUNS[noun]],
        "all_noun_classes": [noun],
    }


def _tail(classes: Sequence[int], number: int) -> list[tuple[int]]:
    """The rarer half of the classes that occur, and all that do not."""
    counts = Counter(classes)
    frequent = {name for name, _ in counts.most_common((len(counts) + 1) // 2)}
    return [(name,) for name in range(number) if name not in frequent]
