"""Whether a text about a synthetic scene is true, judged by the words that name colours, shapes, counts, places and
motions."""

from __future__ import annotations

import re
from collections.abc import Collection

from reserve.synthetic.narration import plural
from reserve.synthetic.story import COLOURS, ROUTE, SHAPES, Scene

_MOTIONS = {
    "left": "slides? left",
    "right": "moves? right",
    "up": "rises? up",
    "down": "falls? down",
    "around": "spins? around",
    "bounce": "bounces?",
    "grow": "grows? and shrinks?",
    "shake": "shakes?",
}
_WORDS = {
    "colour": {colour: colour for colour in COLOURS},
    "shape": {shape: f"{shape}|{plural(shape)}" for shape in SHAPES},
    "count": {1: "one", 2: "two", 3: "three"},
    "place": {place: place for place in ROUTE},
    "motion": _MOTIONS,
}


def mentioned(text: str) -> dict[str, set]:
    """The values of each attribute that a text names."""
    return {
        attribute: {value for value, words in values.items() if re.search(rf"\b({words})\b", text.lower())}
        for attribute, values in _WORDS.items()
    }


def holds(text: str, scene: Scene, *, of: Collection[str] = tuple(_WORDS)) -> bool:
    """Whether all that a text says of a scene is so. It must name something; only the attributes `of` are judged."""
    named = {attribute: values for attribute, values in mentioned(text).items() if values and attribute in of}
    assert named, f"{text!r} says nothing"
    return all(values == {getattr(scene, attribute)} for attribute, values in named.items())
