from itertools import combinations

import numpy as np
import pytest

from reserve.synthetic import drawing
from reserve.synthetic.drawing import HEIGHT, WIDTH, scene_frames, thing_boxes, thing_outlines
from reserve.synthetic.story import COLOURS, MOTIONS, ROUTE, SHAPES, Scene

pytest.importorskip("PIL", reason="needs the extra train")


def frame(colour="red", shape="star", count=1, motion="left", place="beach") -> np.ndarray:
    return scene_frames(Scene(colour, shape, count, motion, place), 1.0, 10)[3].astype(int)


def pixels_of(image: np.ndarray, colour: str) -> np.ndarray:
    return np.abs(image - COLOURS[colour]).max(axis=-1) <= 2


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("place", ["beach", "space"])
def test_the_colour_covers_a_good_part_of_the_picture(colour, place):
    assert pixels_of(frame(colour=colour, place=place), colour).mean() > 0.05


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_count_is_visible(shape, count):
    columns = pixels_of(frame(shape=shape, count=count), "red").any(axis=0)
    assert (np.diff(columns.astype(int)) == 1).sum() == count


@pytest.mark.parametrize(
    ("what", "values"), [("shape", SHAPES), ("motion", MOTIONS), ("place", ROUTE), ("colour", tuple(COLOURS))]
)
def test_a_single_frame_distinguishes_all_values(what, values):
    frames = [frame(**{what: value}) for value in values]
    for one, other in combinations(frames, 2):
        assert (np.abs(one - other).max(axis=-1) > 40).mean() > 0.005


@pytest.mark.parametrize("motion", MOTIONS)
def test_things_move(motion):
    frames = scene_frames(Scene("red", "circle", 1, motion, "beach"), 2.0, 10)
    assert len(frames) == 20
    assert any((frames[0] != later).any() for later in frames[1:])


def test_frames_are_rgb_of_the_stated_size():
    assert frame().shape == (192, 320, 3)
    assert scene_frames(Scene("red", "star", 1, "up", "sea"), 0.1, 10)[0].dtype == np.uint8


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_and_outlines_fit_the_pixels_of_the_things(monkeypatch, shape, motion):
    from PIL import Image, ImageDraw

    count = 1 + SHAPES.index(shape) % 3
    scene = Scene("red", shape, count, motion, "sea")
    number, rate = 7, 10
    drawn = scene_frames(scene, 1.0, rate)[number].astype(int)
    with monkeypatch.context() as patched:
        patched.setattr(drawing, "_draw_things", lambda *_: None)
        empty = scene_frames(scene, 1.0, rate)[number].astype(int)
    things = (drawn != empty).any(axis=-1)
    boxes, outlines = thing_boxes(scene, number / rate), thing_outlines(scene, number / rate)
    assert len(boxes) == len(outlines) == count
    inside = Image.new("1", (WIDTH, HEIGHT))
    for (x1, y1, x2, y2), outline in zip(boxes, outlines, strict=True):
        left, right = round((x1 + x2) / 2 - WIDTH / count / 2), round((x1 + x2) / 2 + WIDTH / count / 2)
        rows, columns = np.nonzero(things[:, max(left, 0) : right])
        columns += max(left, 0)
        # Outlines are three pixels wide and drawn around the corners.
        assert (
            abs(np.array([columns.min() - x1, rows.min() - y1, columns.max() + 1 - x2, rows.max() + 1 - y2])).max() < 4
        )
        ImageDraw.Draw(inside).polygon([tuple(corner) for corner in outline], fill=1)
    filled = pixels_of(drawn, "red") & things
    assert (filled & np.asarray(inside)).sum() > 0.98 * filled.sum()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("motion", MOTIONS)
def test_things_stay_within_the_picture(motion, count):
    scene = Scene("red", "circle", count, motion, "sea")
    boxes = np.concatenate([thing_boxes(scene, time) for time in np.arange(0, 2.4, 0.1)])
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= (WIDTH, HEIGHT)).all()
