"""How questions and answers put what a scene shows into words, and how their choices are ordered."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reserve.synthetic.narration import COUNTS, plural, third_person
from reserve.synthetic.story import COLOURS, MOTIONS, ROUTE, SHAPES, Scene, is_held_out

MOVES = {
    "left": "slide left",
    "right": "move right",
    "up": "rise up",
    "down": "fall down",
    "around": "spin around",
    "bounce": "bounce",
    "grow": "grow and shrink",
    "shake": "shake",
}
"""What a thing does in each motion."""

SOUNDING = {
    "circle": "humming",
    "square": "drumming",
    "triangle": "chiming",
    "star": "chirping",
    "heart": "thumping",
    "diamond": "wailing",
    "cross": "buzzing",
    "ring": "trilling",
    "moon": "hissing",
    "arrow": "ticking",
}
"""What a thing of each shape is heard doing."""


def things(scene: Scene) -> str:
    """The scene's shape, singular or plural: "star", "stars"."""
    return name_things(scene.shape, scene)


def name_things(shape: str, scene: Scene) -> str:
    """A shape, in the plural if the scene shows several things."""
    return shape if scene.count == 1 else plural(shape)


def be(scene: Scene) -> str:
    return "is" if scene.count == 1 else "are"


def moves(motion: str, scene: Scene) -> str:
    """The motion as a verb that agrees with the scene's things: "grows and shrinks", "grow and shrink"."""
    if scene.count > 1:
        return MOVES[motion]
    verbs = (words.split() for words in MOVES[motion].split(" and "))
    return " and ".join(" ".join([third_person(verb), *rest]) for verb, *rest in verbs)


def where(place: str) -> str:
    return "in space" if place == "space" else f"at the {place}"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing to ask about a scene: all `values` it can have, the one `of` a scene, and a `clause` that says of the
    scene's things that they have a value, such as "are red"."""

    values: tuple[Any, ...]
    of: Callable[[Scene], Any]
    clause: Callable[[Any, Scene], str]


ATTRIBUTES = {
    "colour": Attribute(tuple(COLOURS), lambda scene: scene.colour, lambda value, scene: f"{be(scene)} {value}"),
    "shape": Attribute(
        SHAPES,
        lambda scene: scene.shape,
        lambda value, scene: f"is a {value}" if scene.count == 1 else f"are {plural(value)}",
    ),
    "count": Attribute((1, 2, 3), lambda scene: scene.count, lambda value, scene: f"{be(scene)} {COUNTS[value - 1]}"),
    "motion": Attribute(MOTIONS, lambda scene: scene.motion, moves),
    "place": Attribute(ROUTE, lambda scene: scene.place, lambda value, scene: f"{be(scene)} {where(value)}"),
}
"""What there is to ask about a scene."""


def wrong_values(
    attribute: str,
    scene: Scene,
    number: int,
    rng: random.Random,
    *,
    likely: Sequence[Any] = (),
    also_right: Sequence[Any] = (),
) -> list[Any]:
    """`number` values of an attribute that the scene does not have and that are not `also_right`: first those of
    `likely`, which make the question harder, then random ones.

    None makes a pair of colour and shape that training videos never show: a model without the picture could learn to
    reject those.
    """
    excluded = {ATTRIBUTES[attribute].of(scene), *also_right}
    possible = [value for value in ATTRIBUTES[attribute].values if value not in excluded]
    if attribute == "colour":
        possible = [colour for colour in possible if not is_held_out(colour, scene.shape)]
    elif attribute == "shape":
        possible = [shape for shape in possible if not is_held_out(scene.colour, shape)]
    first = [value for value in dict.fromkeys(likely) if value in possible][:number]
    return first + rng.sample([value for value in possible if value not in first], number - len(first))


def positions(choices: int, rng: random.Random) -> Iterator[int]:
    """Positions of the right answers, without end: each of `choices` equally often, in random order."""
    while True:
        yield from rng.sample(range(choices), choices)


def arranged(right: Any, wrong: Sequence[Any], position: int, rng: random.Random) -> list[Any]:
    """All choices in random order, the right one at `position`."""
    choices = rng.sample(list(wrong), len(wrong))
    choices.insert(position, right)
    return choices


def stamp(seconds: float, separator: str, digits: int = 3) -> str:
    """A time such as 00:01:02.345 or, separated by dots, 00.01.02.345; with fewer digits, it is cut."""
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    whole, fraction = divmod(rest, 1000)
    return separator.join((f"{hours:02d}", f"{minutes:02d}", f"{whole:02d}")) + f".{fraction:03d}"[: digits + 1]
