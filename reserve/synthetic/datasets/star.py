"""Small data sets in the format of STAR: questions of four types about stretches of videos (SPEC 10.10).

Interaction asks for what a scene shows, Sequence for what came before or after another thing, Prediction for the place
after the last two, Feasibility for a place within reach. The last two follow from the route that all stories take.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reserve.synthetic.datasets.files import write_json
from reserve.synthetic.datasets.scenes import Stories, Story, TimedScene
from reserve.synthetic.datasets.wording import arranged, name_things, positions, things, where, wrong_values
from reserve.synthetic.drawing import thing_boxes
from reserve.synthetic.story import ROUTE, Scene

CHOICES = 4
TYPES = ("Interaction", "Sequence", "Prediction", "Feasibility")
VIDEOS_FOLDER = "Charades_v1_480"
_LONGEST_STRETCH = 3


def write(stories: Stories, out: Path, *, questions: int, seed: int) -> dict[str, int]:
    """Writes STAR_{train,val,test}.json and the videos, with `questions` questions about each video, the four types in
    turn; returns the number of questions of each split."""
    written = {}
    for split, videos in stories.splits().items():
        rng = random.Random(f"star/{seed}/{split}")
        places = positions(CHOICES, rng)
        records: list[dict[str, Any]] = []
        numbers = dict.fromkeys(TYPES, 0)
        for story in videos:
            (out / VIDEOS_FOLDER).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(story.path, out / VIDEOS_FOLDER / f"{_video_id(story)}.mp4")
            for number in range(questions):
                kind = TYPES[number % len(TYPES)]
                numbers[kind] += 1
                records.append(_question(story, kind, numbers[kind], next(places), rng))
        if split == "test":
            for record in records:
                del record["answer"]
        write_json(out / f"STAR_{split}.json", records)
        written[f"{split} questions"] = len(records)
    return written


def _video_id(story: Story) -> str:
    """Five characters, as in Charades."""
    return f"{story.split[0].upper()}{story.index:04d}"


def _question(story: Story, kind: str, number: int, position: int, rng: random.Random) -> dict[str, Any]:
    lengths = {"Interaction": 1, "Sequence": _LONGEST_STRETCH, "Prediction": 2, "Feasibility": 1}
    length = min(lengths[kind], len(story.scenes))
    first = rng.randrange(len(story.scenes) - length + 1)
    stretch = story.scenes[first : first + length]
    template, question, right, wrong, program = _ASK[kind]([timed.scene for timed in stretch], rng)
    texts = arranged(right, wrong, position, rng)
    return {
        "answer": right,
        "choices": [
            {
                "choice": text,
                "choice_id": number,
                "choice_program": [{"function": "Equal", "value_input": [_bare(text)]}],
            }
            for number, text in enumerate(texts)
        ],
        "end": round(stretch[-1].end, 1),
        "question": question,
        "question_id": f"{kind}_T{template}_{number}",
        "question_program": [{"function": name, "value_input": list(values)} for name, *values in program],
        "situations": dict(_situations(stretch)),
        "start": round(stretch[0].start, 1),
        "video_id": _video_id(story),
    }


def _bare(text: str) -> str:
    return text.removeprefix("The ").removesuffix(".")


# Each returns the template's number, question, right choice, wrong choices and program.
_Asked = tuple[int, str, str, list[str], list[tuple[str, ...]]]


def _ask_interaction(scenes: Sequence[Scene], rng: random.Random) -> _Asked:
    scene = scenes[0]
    if rng.random() < 0.5:
        shapes = (scene.shape, *wrong_values("shape", scene.shape, CHOICES - 1, rng))
        right, *wrong = (_object(shape, scene) for shape in shapes)
        return 1, "Which object was seen by the person?", right, wrong, [("Objects", "see")]
    colours = (scene.colour, *wrong_values("colour", scene.colour, CHOICES - 1, rng))
    right, *wrong = (_the(f"{colour} {things(scene)}") for colour in colours)
    question = f"Which object did the person see while they were {where(scene.place)}?"
    return 2, question, right, wrong, [("Objects", "see"), ("While", scene.place)]


def _ask_sequence(scenes: Sequence[Scene], rng: random.Random) -> _Asked:
    middle = len(scenes) // 2
    step = rng.choice((-1, 1))
    known, right = scenes[middle], scenes[middle + step]
    other = [scene.shape for scene in scenes if scene not in (known, right)]
    shapes = wrong_values("shape", right.shape, CHOICES - 1, rng, likely=other, also_right=[known.shape])
    order = "after" if step > 0 else "before"
    question = f"Which object did the person see {order} they saw the {things(known)}?"
    program: list[tuple[str, ...]] = [("Objects", "see"), (order.capitalize(), known.shape)]
    return 1 if step > 0 else 2, question, _object(right.shape, right), [_object(s, right) for s in shapes], program


def _ask_prediction(scenes: Sequence[Scene], rng: random.Random) -> _Asked:
    before, now = scenes[0].place, scenes[-1].place
    step = (ROUTE.index(now) - ROUTE.index(before)) % len(ROUTE)
    right = ROUTE[(ROUTE.index(now) + step) % len(ROUTE)]
    wrong = wrong_values("place", right, CHOICES - 1, rng, likely=[before])
    return 1, "Which place will the person see next?", _the(right), [_the(place) for place in wrong], [("Next", now)]


def _ask_feasibility(scenes: Sequence[Scene], rng: random.Random) -> _Asked:
    now = ROUTE.index(scenes[0].place)
    near = [ROUTE[(now + step) % len(ROUTE)] for step in (-1, 1)]
    right = rng.choice(near)
    wrong = wrong_values("place", right, CHOICES - 1, rng, also_right=[*near, ROUTE[now]])
    question = "Which other place is the person able to see after this place?"
    return 1, question, _the(right), [_the(place) for place in wrong], [("Reach", ROUTE[now])]


_ASK = {
    "Interaction": _ask_interaction,
    "Sequence": _ask_sequence,
    "Prediction": _ask_prediction,
    "Feasibility": _ask_feasibility,
}


def _the(word: str) -> str:
    return f"The {word}."


def _object(shape: str, scene: Scene) -> str:
    return _the(name_things(shape, scene))


def _situations(stretch: Sequence[TimedScene]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The things seen in the middle of each scene, by the number of the frame at 30 a second."""
    for timed in stretch:
        boxes = thing_boxes(timed.scene, timed.middle - timed.start).round(2).tolist()
        yield (
            f"{round(timed.middle * 30):06d}",
            {
                "rel_pairs": [],
                "rel_labels": [],
                "actions": [],
                "bbox": boxes,
                "bbox_labels": [timed.scene.shape] * len(boxes),
            },
        )
