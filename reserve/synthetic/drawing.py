"""Draws the frames of a scene: a place, things that move in front of it, and marks that show the motion."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any

import numpy as np

from reserve.synthetic.story import COLOURS, Scene

WIDTH, HEIGHT = 320, 192
OUTLINE = (16, 16, 16)
RADII = {1: 62, 2: 50, 3: 40}
"""Radius of each thing in pixels, by the number of things."""
SWING = 34
"""How far things move from the middle of the picture, in pixels."""

# Sky, ground and landmarks, dimmer than the things in front of them.
PLACES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    "beach": ((150, 190, 215), (205, 190, 140), (190, 175, 120)),
    "sea": ((120, 150, 180), (40, 80, 130), (70, 115, 160)),
    "city": ((135, 135, 145), (80, 80, 86), (100, 100, 110)),
    "desert": ((210, 180, 150), (185, 140, 95), (95, 110, 70)),
    "farm": ((170, 200, 170), (110, 140, 60), (130, 70, 60)),
    "forest": ((60, 90, 70), (35, 60, 35), (50, 45, 30)),
    "mountain": ((185, 195, 210), (150, 155, 170), (110, 115, 130)),
    "space": ((14, 14, 34), (34, 26, 58), (90, 90, 120)),
}
HORIZON = 118

_ROUND = ("circle", "ring")
_CIRCLE = tuple((math.cos(math.pi * k / 20), math.sin(math.pi * k / 20)) for k in range(40))


def scene_frames(scene: Scene, seconds: float, rate: int) -> list[np.ndarray]:
    """round(seconds * rate) RGB frames of `scene`, each uint8 [192, 320, 3]."""
    from PIL import Image, ImageDraw

    background = Image.fromarray(_background(scene.place))
    _draw_motion_marks(ImageDraw.Draw(background), scene)
    frames = []
    for number in range(round(seconds * rate)):
        image = background.copy()
        _draw_things(ImageDraw.Draw(image), scene, number / rate)
        frames.append(np.asarray(image))
    return frames


@cache
def _background(place: str) -> np.ndarray:
    """The picture of a place, uint8 [192, 320, 3]; the same in every video."""
    from PIL import Image, ImageDraw

    sky, ground, detail = PLACES[place]
    image = Image.new("RGB", (WIDTH, HEIGHT), sky)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, HORIZON, WIDTH, HEIGHT), ground)
    rng = random.Random(place)
    for column in range(10):
        x = 32 * column + rng.randrange(-6, 7)
        _draw_detail(draw, place, x, rng.randrange(0, 40), detail)
    return np.asarray(image)


def _draw_detail(draw: Any, place: str, x: int, size: int, colour: tuple[int, int, int]) -> None:
    """Draws one of a place's ten landmarks around column `x`; `size` is in [0, 40)."""
    match place:
        case "beach":
            draw.ellipse((x, 130 + size, x + 14, 138 + size), colour)
        case "sea":
            for row in range(HORIZON, HEIGHT, 18):
                draw.arc((x - 16, row, x + 16, row + 14), 180, 360, colour, 3)
        case "city":
            draw.rectangle((x - 12, 40 + size, x + 12, HORIZON), colour)
        case "desert":
            draw.rectangle((x - 3, 110 - size // 2, x + 3, 150), colour)
            draw.rectangle((x - 10, 120, x + 10, 125), colour)
        case "farm":
            draw.rectangle((x - 14, 96 + size // 4, x + 12, HORIZON + 8), colour)
            draw.polygon(((x - 18, 96), (x - 1, 78), (x + 16, 96)), colour)
        case "forest":
            draw.rectangle((x - 4, 0, x + 4, HEIGHT), colour)
        case "mountain":
            draw.polygon(((x - 30, HORIZON), (x, 30 + size), (x + 30, HORIZON)), colour)
        case "space":
            for row in range(size % 20, HEIGHT, 31):
                draw.ellipse((x, row, x + 3, row + 3), colour)


def _position(motion: str, time: float) -> tuple[float, float, float]:
    """Position after `time` seconds: x and y as multiples of SWING from the middle, and the relative size."""
    cycle = time / 2.4 % 1
    sweep = 2 * cycle - 1
    match motion:
        case "left":
            return -sweep, 0, 1
        case "right":
            return sweep, 0, 1
        case "up":
            return 0, -sweep, 1
        case "down":
            return 0, sweep, 1
        case "around":
            return math.cos(2 * math.pi * cycle), math.sin(2 * math.pi * cycle), 1
        case "bounce":
            return 0, 1 - 2 * abs(math.sin(2 * math.pi * cycle)), 1
        case "grow":
            return 0, 0, 0.75 + 0.35 * math.sin(2 * math.pi * cycle)
        case _:
            return 0.25 * (-1) ** int(time * 5), 0, 1


def _draw_motion_marks(draw: Any, scene: Scene) -> None:
    """Draws marks along the border, from which a single frame shows the motion."""
    light = (240, 240, 240)
    edge, x_middle, y_middle = 20, WIDTH // 2, HEIGHT // 2
    for side in (-1, 1):
        x, y = x_middle + side * (x_middle - edge), y_middle + side * (y_middle - edge)
        match scene.motion:
            case "left" | "right" as direction:
                tip = 8 if direction == "right" else -8
                for left in range(20, WIDTH, 40):
                    draw.polygon(((left - tip, y - 8), (left + tip, y), (left - tip, y + 8)), light, OUTLINE)
            case "up" | "down" as direction:
                tip = 8 if direction == "down" else -8
                for top in range(16, HEIGHT, 32):
                    draw.polygon(((x - 8, top - tip), (x, top + tip), (x + 8, top - tip)), light, OUTLINE)
            case "around":
                draw.ellipse((13, 13, WIDTH - 14, HEIGHT - 14), None, light, 5)
            case "bounce":
                for left in range(0, WIDTH, 64):
                    draw.arc((left, HEIGHT - 30, left + 64, HEIGHT + 24), 180, 360, light, 5)
            case "grow":
                draw.rectangle((13, 13, WIDTH - 14, HEIGHT - 14), None, light, 5)
            case "shake":
                zigzag = [(left, y + (6 if left % 32 else -6)) for left in range(0, WIDTH + 16, 16)]
                draw.line(zigzag, light, 5)


def thing_outlines(scene: Scene, time: float) -> list[np.ndarray]:
    """The outline of each of a scene's things `time` seconds into it, from left to right: float64 [corners, 2], x and y
    in pixels, all within the picture."""
    corners = np.array(_CIRCLE if scene.shape in _ROUND else _outline(scene.shape))
    return [np.array([x, y]) + radius * corners for x, y, radius in _placements(scene, time)]


def thing_boxes(scene: Scene, time: float) -> np.ndarray:
    """The box around each of a scene's things `time` seconds into it, from left to right: float64 [count, 4], x1, y1,
    x2, y2 in pixels."""
    outlines = thing_outlines(scene, time)
    return np.array([[*corners.min(axis=0), *corners.max(axis=0)] for corners in outlines])


def _placements(scene: Scene, time: float) -> list[tuple[float, float, float]]:
    """Middle (x, y) and radius of each thing in pixels, from left to right."""
    x, y, size = _position(scene.motion, time)
    spacing = WIDTH / scene.count
    middle_y = HEIGHT / 2 + y * SWING * (1.0 if scene.count > 1 else 0.8)
    return [
        (spacing * (index + 0.5) + x * SWING / scene.count, middle_y, RADII[scene.count] * size)
        for index in range(scene.count)
    ]


def _draw_things(draw: Any, scene: Scene, time: float) -> None:
    for x, y, radius in _placements(scene, time):
        _draw_shape(draw, scene.shape, x, y, radius, COLOURS[scene.colour])


def _draw_shape(draw: Any, shape: str, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    """Draws one outlined thing within `radius` of (x, y)."""
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, colour, OUTLINE, 3)
    elif shape == "ring":
        draw.ellipse(box, None, OUTLINE, round(radius * 0.5))
        inset = 3
        draw.ellipse(tuple(b + inset * (1, 1, -1, -1)[i] for i, b in enumerate(box)), None, colour, round(radius * 0.4))
    else:
        draw.polygon([(x + radius * px, y + radius * py) for px, py in _outline(shape)], colour, OUTLINE, 3)


@cache
def _outline(shape: str) -> tuple[tuple[float, float], ...]:
    """Corners of a shape in the unit circle; y points down."""
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    match shape:
        case "square":
            return ((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8))
        case "triangle":
            return ((0, -0.95), (0.95, 0.75), (-0.95, 0.75))
        case "diamond":
            return ((0, -1), (0.62, 0), (0, 1), (-0.62, 0))
        case "star":
            spikes = [(math.pi * k / 5, 1.0 if k % 2 == 0 else 0.42) for k in range(10)]
            return tuple((r * math.sin(a), -r * math.cos(a)) for a, r in spikes)
        case "heart":
            x = np.sin(turns) ** 3
            y = -(13 * np.cos(turns) - 5 * np.cos(2 * turns) - 2 * np.cos(3 * turns) - np.cos(4 * turns)) / 16
            return tuple(zip(x.tolist(), y.tolist(), strict=True))
        case "cross":
            a = 0.32
            arm = ((-a, -a), (-a, -1), (a, -1))  # rotated by a right angle for each further arm
            return tuple(
                corner
                for turn in ((1, 0), (0, 1), (-1, 0), (0, -1))
                for corner in ((x * turn[0] - y * turn[1], x * turn[1] + y * turn[0]) for x, y in arm)
            )
        case "moon":
            outer = [(np.cos(a), np.sin(a)) for a in np.pi * np.linspace(0.25, 1.75, 24)]
            inner = [(0.5 + 0.71 * np.cos(a), 0.8 * np.sin(a)) for a in np.pi * np.linspace(1.62, 0.38, 20)]
            return tuple((float(x), float(y)) for x, y in outer + inner)
        case "arrow":
            return ((1, 0), (0.1, -0.85), (0.1, -0.35), (-1, -0.35), (-1, 0.35), (0.1, 0.35), (0.1, 0.85))
        case _:
            raise ValueError(f"no outline for shape {shape!r}")
