from itertools import combinations

import numpy as np
import pytest

from reserve.synthetic.drawing import scene_frames
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
