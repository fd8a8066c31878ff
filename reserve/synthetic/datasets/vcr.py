"""Small data sets in the format of VCR: questions about pictures whose things have boxes (SPEC 10.7).

A picture is a frame of one scene, or the frames of two scenes side by side, so that a question must be read together
with the boxes that it names. The right answer says what one group of things looks like, the right rationale repeats it
and adds a second fact; wrong rationales get the second fact wrong. Both need the picture.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from reserve.data.decode.protocol import Media
from reserve.data.images import encode_jpeg
from reserve.synthetic.datasets.files import write_json_lines
from reserve.synthetic.datasets.scenes import Stories, Story, TimedScene, frames_between
from reserve.synthetic.datasets.wording import ATTRIBUTES, arranged, be, positions, stamp, wrong_values
from reserve.synthetic.drawing import WIDTH, thing_boxes, thing_outlines
from reserve.synthetic.story import Scene
from reserve.synthetic.videos import FRAME_RATE

CHOICES = 4
QUESTIONS_PER_PICTURE = 2
# Names give away shape and count.
ASKED = ("colour", "motion", "place")
SETTLE_SECONDS = 0.5
"""Pictures keep this distance from the start and end of their scene."""
FIELDS = (
    "movie", "objects", "interesting_scores", "answer_likelihood", "img_fn", "metadata_fn", "answer_orig",
    "question_orig", "rationale_orig", "question", "answer_match_iter", "answer_sources", "answer_choices",
    "answer_label", "rationale_choices", "rationale_sources", "rationale_match_iter", "rationale_label", "img_id",
    "question_number", "annot_id", "match_fold", "match_index",
)  # fmt: skip
# In the unlabelled split these would give the answers away.
_LABELLED_ONLY = ("_label", "_orig", "_sources", "_match_iter")
Token = str | list[int]


@dataclass(frozen=True)
class _Picture:
    """A frame of each of `scenes`, `seconds` into it, side by side; `name` is its path without an ending."""

    name: str
    movie: str
    scenes: tuple[TimedScene, ...]
    seconds: tuple[float, ...]

    def groups(self) -> list[list[int]]:
        """Indices of the objects of each scene."""
        ends = list(accumulate(timed.scene.count for timed in self.scenes))
        return [list(range(end - timed.scene.count, end)) for timed, end in zip(self.scenes, ends, strict=True)]

    def objects(self) -> list[str]:
        return [timed.scene.shape for timed in self.scenes for _ in range(timed.scene.count)]


def write(stories: Stories, out: Path, *, questions: int, seed: int) -> dict[str, int]:
    """Writes train.jsonl, val.jsonl, test.jsonl and vcr1images, with `questions` questions about each video; returns
    the number of questions of each split."""
    written = {}
    for split, videos in stories.splits().items():
        records = list(_records(split, videos, out / "vcr1images", questions, random.Random(f"vcr/{seed}/{split}")))
        write_json_lines(out / f"{split}.jsonl", records)
        written[f"{split} questions"] = len(records)
    return written


def _records(
    split: str, videos: Sequence[Story], images: Path, questions: int, rng: random.Random
) -> Iterator[dict[str, Any]]:
    """The questions of a split. Writes their pictures."""
    answer_positions, rationale_positions = positions(CHOICES, rng), positions(CHOICES, rng)
    fields = [name for name in FIELDS if split != "test" or not name.endswith(_LABELLED_ONLY)]
    index = image = 0
    for story in videos:
        with story.open() as media:
            pictures = _pictures(story, split, rng)
            for first in range(0, questions, QUESTIONS_PER_PICTURE):
                picture = next(pictures)
                _write_picture(picture, media, images)
                kinds = rng.sample(ASKED, len(ASKED))
                for number in range(min(QUESTIONS_PER_PICTURE, questions - first)):
                    asked, added = kinds[number], kinds[(number + 1) % len(kinds)]
                    places = (next(answer_positions), next(rationale_positions))
                    record = _question(picture, asked, added, places, rng) | _ids(split, index, image, number)
                    yield {name: record[name] for name in fields}
                    index += 1
                image += 1


def _pictures(story: Story, split: str, rng: random.Random) -> Iterator[_Picture]:
    """Pictures of a video without end: of one scene and of two scenes in turn."""
    movie = f"{story.split}_{story.path.stem}".upper().replace("-", "_")
    order: list[TimedScene] = []
    number = 0
    while True:
        while len(order) < 2:
            order += rng.sample(story.scenes, len(story.scenes))
        scenes = [order.pop(0)]
        other = next((timed for timed in order if _differ(timed.scene, scenes[0].scene)), None)
        if number % 2 and other is not None:
            order.remove(other)
            scenes.append(other)
        seconds = [_time_in(timed, rng) for timed in scenes]
        first, last = min(timed.start for timed in scenes), max(timed.end for timed in scenes)
        name = f"synthetic_{movie}/{movie}_{stamp(first, '.')}-{stamp(last, '.')}@{split}{number}"
        yield _Picture(name, movie, tuple(scenes), tuple(seconds))
        number += 1


def _differ(one: Scene, other: Scene) -> bool:
    return one.shape != other.shape and all(ATTRIBUTES[kind].of(one) != ATTRIBUTES[kind].of(other) for kind in ASKED)


def _time_in(timed: TimedScene, rng: random.Random) -> float:
    """The time of a random frame, in seconds from the start of its scene."""
    margin = min(SETTLE_SECONDS, (timed.end - timed.start) / 4)
    return round(rng.uniform(margin, timed.end - timed.start - margin) * FRAME_RATE) / FRAME_RATE


def _write_picture(picture: _Picture, media: Media, images: Path) -> None:
    panels: list[np.ndarray] = []
    boxes: list[list[float]] = []
    outlines: list[np.ndarray] = []
    for number, (timed, seconds) in enumerate(zip(picture.scenes, picture.seconds, strict=True)):
        start = timed.start + seconds
        panels += frames_between(media, start, start + 1 / FRAME_RATE, FRAME_RATE)
        shift = number * WIDTH
        boxes += [
            [x1 + shift, y1, x2 + shift, y2, 1.0] for x1, y1, x2, y2 in thing_boxes(timed.scene, seconds).tolist()
        ]
        outlines += [corners + np.array([shift, 0]) for corners in thing_outlines(timed.scene, seconds)]
    image = np.concatenate(panels, axis=1)
    height, width = image.shape[:2]
    metadata = {
        "boxes": [[round(value, 4) for value in box] for box in boxes],
        "segms": [[corners.round(2).tolist()] for corners in outlines],
        "names": picture.objects(),
        "width": width,
        "height": height,
    }
    path = images / picture.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.jpg").write_bytes(encode_jpeg(image))
    path.with_name(f"{path.name}.json").write_text(json.dumps(metadata), "utf-8")


def _question(picture: _Picture, asked: str, added: str, places: tuple[int, int], rng: random.Random) -> dict[str, Any]:
    """A question on one attribute of a group of things, whose rationale adds another; the right answer and the right
    rationale are at `places`."""
    position, why = places
    group = rng.randrange(len(picture.scenes))
    scene, tag = picture.scenes[group].scene, picture.groups()[group]
    others = [timed.scene for timed in picture.scenes if timed.scene is not scene]
    right = ATTRIBUTES[asked].of(scene)
    wrong = _wrong(asked, right, others, rng)
    right_added = ATTRIBUTES[added].of(scene)
    wrong_added = _wrong(added, right_added, others, rng)
    answers: dict[Any, list[Token]] = {
        value: [tag, *ATTRIBUTES[asked].clause(value, scene).split(), "."] for value in (right, *wrong)
    }
    claim: list[Token] = ["I", "can", "see", "that", *answers[right][:-1], "and"]
    rationales: dict[Any, list[Token]] = {
        value: [*claim, *ATTRIBUTES[added].clause(value, scene).split(), "."] for value in (right_added, *wrong_added)
    }
    answer_order = arranged(right, wrong, position, rng)
    rationale_order = arranged(right_added, wrong_added, why, rng)
    question = _question_tokens(asked, scene, tag)
    return {
        "movie": picture.movie,
        "objects": picture.objects(),
        "interesting_scores": [0],
        "answer_likelihood": "likely",
        "img_fn": f"{picture.name}.jpg",
        "metadata_fn": f"{picture.name}.json",
        "answer_orig": _written(answers[right]),
        "question_orig": _written(question),
        "rationale_orig": _written(rationales[right_added]),
        "question": question,
        "answer_match_iter": _iterations(position),
        "answer_choices": [answers[value] for value in answer_order],
        "answer_label": position,
        "rationale_choices": [rationales[value] for value in rationale_order],
        "rationale_match_iter": _iterations(why),
        "rationale_label": why,
    }


def _question_tokens(asked: str, scene: Scene, tag: list[int]) -> list[Token]:
    match asked:
        case "colour":
            return ["What", "colour", be(scene), tag, "?"]
        case "motion":
            return ["How", "do" if scene.count > 1 else "does", tag, "move", "?"]
        case _:
            return ["Where", be(scene), tag, "?"]


def _wrong(asked: str, right: Any, others: Sequence[Scene], rng: random.Random) -> list[Any]:
    """Wrong values, that of the picture's other scene among them."""
    return wrong_values(asked, right, CHOICES - 1, rng, likely=[ATTRIBUTES[asked].of(scene) for scene in others])


def _ids(split: str, index: int, picture: int, number: int) -> dict[str, Any]:
    """Identifiers of a question. Its wrong answers are made for it, so it is the source of all its choices."""
    return {
        "answer_sources": [index] * CHOICES,
        "rationale_sources": [index] * CHOICES,
        "img_id": f"{split}-{picture}",
        "question_number": number,
        "annot_id": f"{split}-{index}",
        "match_fold": f"{split}-0",
        "match_index": index,
    }


def _iterations(right: int) -> list[int]:
    """0 for the right choice, a number from 1 for each other one."""
    others = iter(range(1, CHOICES))
    return [0 if choice == right else next(others) for choice in range(CHOICES)]


def _written(tokens: Sequence[Token]) -> str:
    """Tokens as an annotator writes them, objects by their numbers from 1."""
    words = [" and ".join(str(index + 1) for index in token) if isinstance(token, list) else token for token in tokens]
    return " ".join(words[:-1]) + words[-1]
