"""Objects drawn on VCR's pictures: a box in its own colour for each object that has a name (SPEC 10.7)."""

from __future__ import annotations

import colorsys
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reserve.tasks.vcr.annotations import Objects, Question
from reserve.tasks.vcr.text import object_names

_FILL_ALPHA, _OUTLINE_ALPHA = 32, 255
_OUTLINE_WIDTH = 2

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box (x1, y1, x2, y2) in pixels of the picture that it is drawn on, and its colour."""

    rectangle: tuple[float, float, float, float]
    colour: Colour


def colour_of(name: str) -> Colour:
    """The colour of an object's name, RGB in 0 to 255: a pure function of the name, never very dark or very light."""
    number = int(hashlib.sha256(name.encode()).hexdigest(), 16)
    hue, saturation, lightness = number % 1024 / 1024, number % 1023 / 1023, 0.4 + 0.6 * (number % 1025) / 1025
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return int(red * 255), int(green * 255), int(blue * 255)


def drawn_boxes(question: Question, objects: Objects, width: int) -> list[DrawnBox]:
    """The boxes to draw on a picture `width` pixels wide, in the order in which they cover each other.

    Those of objects that the question, an answer or a rationale mentions, and of all that are the only ones of their
    class.
    """
    totals = Counter(objects.names)
    mentioned = {index for text in question.texts for token in text if not isinstance(token, str) for index in token}
    names = object_names(objects.names)
    scale = width / objects.width
    return [
        DrawnBox(_scaled(objects.boxes[index], scale), colour_of(name))
        for index, name in enumerate(names)
        if index in mentioned or totals[objects.names[index]] == 1
    ]


def mirrored(boxes: Sequence[DrawnBox], width: int) -> list[DrawnBox]:
    """The boxes with left and right exchanged on a picture `width` pixels wide."""
    turned = []
    for box in boxes:
        x1, y1, x2, y2 = box.rectangle
        turned.append(DrawnBox((width - x2, y1, width - x1, y2), box.colour))
    return turned


def draw_boxes(image: np.ndarray, boxes: Sequence[DrawnBox]) -> np.ndarray:
    """uint8 [h, w, 3] with the boxes drawn on it, translucent with an opaque outline."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture, "RGBA")
    for box in boxes:
        x1, y1, x2, y2 = box.rectangle
        draw.rectangle(
            (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)),
            fill=(*box.colour, _FILL_ALPHA),
            outline=(*box.colour, _OUTLINE_ALPHA),
            width=_OUTLINE_WIDTH,
        )
    return np.asarray(picture)


def _scaled(box: tuple[float, float, float, float], scale: float) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return x1 * scale, y1 * scale, x2 * scale, y2 * scale
