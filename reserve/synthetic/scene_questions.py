"""Questions about scenes of the synthetic videos, in the narrator's words, whose right answers are known."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from reserve.synthetic.datasets.scenes import Story, TimedScene
from reserve.synthetic.datasets.wording import ATTRIBUTES, arranged, name_things, things, wrong_values
from reserve.synthetic.narration import COUNTS, CRIES, WHERES, agreeing
from reserve.synthetic.story import Scene

CHOICES = 4
MASK_TEXT = "<|MASK|>"


@dataclass(frozen=True, slots=True)
class SceneQuestion:
    """A question about the seconds from `start` to `end` of a video, and its `answers`, of which `right` holds."""

    kind: str
    text: str
    answers: tuple[str, ...]
    right: str
    start: float
    end: float


def scene_questions(story: Story, seed: int = 0) -> tuple[SceneQuestion, ...]:
    """One question of each kind about a video, each about a scene drawn at random: what is seen, where it is, and what
    it sounds like. The same story and seed give the same questions."""
    rng = random.Random(f"questions/{seed}/{story.split}/{story.index}")
    return tuple(_question(kind, rng.choice(story.usual_scenes), rng) for kind in _KINDS)


def phrase_of(scene: Scene) -> str:
    """Words for what a scene shows, as its narrator would begin: "two red stars"."""
    return _named(scene.colour, scene)


def _question(kind: str, timed: TimedScene, rng: random.Random) -> SceneQuestion:
    asked, scene = _KINDS[kind], timed.scene
    values = (ATTRIBUTES[asked.attribute].of(scene), *wrong_values(asked.attribute, scene, CHOICES - 1, rng))
    right, *wrong = (asked.answer(value, scene) for value in values)
    answers = arranged(right, wrong, rng.randrange(CHOICES), rng)
    return SceneQuestion(kind, asked.text(scene), tuple(answers), right, timed.start, timed.end)


def _named(colour: str, scene: Scene) -> str:
    return f"{COUNTS[scene.count - 1]} {colour} {things(scene)}"


def _crying(shape: str, scene: Scene) -> str:
    return f"{name_things(shape, scene)} {agreeing(CRIES[shape][1], scene)}"


class _Kind(NamedTuple):
    """A kind of question: the `attribute` asked for, the question's `text`, and the `answer` that a value gives."""

    attribute: str
    text: Callable[[Scene], str]
    answer: Callable[[str, Scene], str]


_KINDS = {
    "seen": _Kind("colour", lambda scene: f"look at {MASK_TEXT}", _named),
    "where": _Kind(
        "place", lambda scene: f"{scene.colour} {things(scene)} {MASK_TEXT}", lambda place, scene: WHERES[place][0]
    ),
    "heard": _Kind("shape", lambda scene: f"{scene.colour} {MASK_TEXT}", _crying),
}
