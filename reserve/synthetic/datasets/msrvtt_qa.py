"""Small data sets in the format of MSR-VTT QA: questions with answers of one word about short videos (SPEC 10.13).

A video is one scene. Every answer of the validation and test splits is also one of the training split if that has
enough questions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reserve.fs import write_text_atomic
from reserve.synthetic.datasets.files import write_json
from reserve.synthetic.datasets.scenes import Stories, TimedScene, write_clip
from reserve.synthetic.datasets.wording import be, things
from reserve.synthetic.narration import COUNTS
from reserve.synthetic.story import ROUTE

FIRST_VIDEOS = {"train": 0, "val": 6513, "test": 7010}
"""Number of the first video of each split, as in the data set."""
STATEMENTS = "statements.json"
KINDS = ("colour", "count", "shape", "place")


def write(stories: Stories, out: Path, *, questions: int, seed: int) -> dict[str, int]:
    """Writes {train,val,test}_qa.json, category.txt, readme.txt, the statements of all questions and the videos, with
    `questions` questions about each synthetic video; returns the number of questions of each split."""
    written = {}
    statements: dict[str, str] = {}
    questions_before = 0
    for split, videos in stories.splits().items():
        rng = random.Random(f"msrvtt-qa/{seed}/{split}")
        records: list[dict[str, Any]] = []
        video = FIRST_VIDEOS[split]
        for story in videos:
            with story.open() as media:
                for timed, kinds in _questions(story.scenes, questions, rng):
                    write_clip(media, timed.start, timed.end, out / "video" / f"video{video}.mp4")
                    for kind in kinds:
                        number = questions_before + len(records)
                        question, statement, answer = _ask(kind, timed)
                        records.append(
                            {
                                "answer": answer,
                                "category_id": ROUTE.index(timed.scene.place),
                                "id": number,
                                "question": question,
                                "video_id": video,
                            }
                        )
                        statements[str(number)] = statement
                    video += 1
        write_json(out / f"{split}_qa.json", records)
        written[f"{split} questions"] = len(records)
        questions_before += len(records)
    write_json(out / STATEMENTS, statements)
    write_text_atomic(out / "category.txt", "".join(f"{place}\t{number}\r\n" for number, place in enumerate(ROUTE)))
    write_text_atomic(out / "readme.txt", "Synthetic questions in the format of MSRVTT-QA, over `reserve demo-data`.\n")
    return written


def _questions(
    scenes: tuple[TimedScene, ...], questions: int, rng: random.Random
) -> Iterator[tuple[TimedScene, list[str]]]:
    """Scenes and the kinds of questions to ask about each: `questions` in all, spread over the scenes, but each kind
    only once a scene."""
    order = rng.sample(scenes, min(len(scenes), questions))
    for number, timed in enumerate(order):
        share = questions // len(order) + (number < questions % len(order))
        yield timed, rng.sample(KINDS, min(share, len(KINDS)))


def _ask(kind: str, timed: TimedScene) -> tuple[str, str, str]:
    """Question, the same as a statement with "_" for the answer, and the answer."""
    scene = timed.scene
    what, verb = things(scene), be(scene)
    match kind:
        case "colour":
            return f"what color {verb} the {what}?", f"the {what} {verb} _.", scene.colour
        case "count":
            return f"how many {what} {verb} there?", f"there {verb} _ {what}.", COUNTS[scene.count - 1]
        case "shape":
            return f"what {verb} in the {scene.place}?", f"the _ {verb} in the {scene.place}.", what
        case _:
            return f"where {verb} the {what}?", f"the {what} {verb} in the _.", scene.place
