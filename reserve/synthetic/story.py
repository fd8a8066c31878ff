"""The scenes of a synthetic video, and the combinations of colour and shape that only held-out videos show.

A scene shows one to three things of one colour and shape, with one motion, at one place. The shape sets the timbre of
its sound, the colour the pitch. A story moves along a fixed route of places, one step per scene.

Of the 100 pairs of colour and shape, the 20 with (colour - shape) mod 10 in {0, 5} are held out: training stories
never show them, held-out stories show one in every second scene. Training therefore shows every colour with eight of
the ten shapes, and every shape with eight of the ten colours.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "heldout"]

COLOURS = {
    "red": (222, 24, 24),
    "orange": (255, 138, 0),
    "yellow": (252, 232, 30),
    "green": (24, 168, 36),
    "turquoise": (0, 216, 208),
    "blue": (24, 60, 230),
    "purple": (138, 32, 196),
    "pink": (255, 120, 196),
    "brown": (118, 62, 20),
    "white": (252, 252, 252),
}
"""RGB value of each colour."""

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring", "moon", "arrow")
MOTIONS = ("left", "right", "up", "down", "around", "bounce", "grow", "shake")
ROUTE = ("beach", "sea", "city", "desert", "farm", "forest", "mountain", "space")
"""The circular route of places. A story starts anywhere on it and goes in either direction."""

HELD_OUT_DIFFERENCES = (0, 5)
RECENT_SCENES = 4
"""A colour or shape does not repeat within this many scenes."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene: `count` things of one colour and shape."""

    colour: str
    shape: str
    count: int
    motion: str
    place: str


def is_held_out(colour: str, shape: str) -> bool:
    """Whether only held-out videos show this colour with this shape."""
    difference = list(COLOURS).index(colour) - SHAPES.index(shape)
    return difference % len(SHAPES) in HELD_OUT_DIFFERENCES


def story_rng(seed: int, split: Split, index: int, purpose: str) -> random.Random:
    """A generator for one purpose in one story, independent of everything else that is generated."""
    return random.Random(f"{seed}/{split}/{index}/{purpose}")


def plan_story(seed: int, split: Split, index: int, scenes: int) -> list[Scene]:
    """The first `scenes` scenes of a story: a pure function of its arguments. More scenes extend the same story."""
    rng = story_rng(seed, split, index, "scenes")
    place = rng.randrange(len(ROUTE))
    direction = rng.choice((1, -1))
    story: list[Scene] = []
    for number in range(scenes):
        recent = story[-RECENT_SCENES:]
        held_out = split == "heldout" and number % 2 == 0
        pairs = [
            (colour, shape)
            for colour in COLOURS
            for shape in SHAPES
            if is_held_out(colour, shape) == held_out
            and all(colour != scene.colour and shape != scene.shape for scene in recent)
        ]
        colour, shape = rng.choice(pairs)
        motions = [motion for motion in MOTIONS if not recent or motion != recent[-1].motion]
        story.append(Scene(colour, shape, rng.randint(1, 3), rng.choice(motions), ROUTE[place]))
        place = (place + direction) % len(ROUTE)
    return story
