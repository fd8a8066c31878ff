from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reserve.tasks.data_folder import Record
from reserve.tasks.vcr.annotations import Objects, read_question
from reserve.tasks.vcr.boxes import DrawnBox, colour_of, draw_boxes, drawn_boxes, mirrored
from tests.helpers.vcr_folder import question


@pytest.fixture
def asked():
    """Mentions objects 0 and 1 in the question, 1 in the rationales."""
    return read_question(Record(question(0, "val", 0), "x"))


def test_mentioned_objects_and_single_ones_of_their_class_are_drawn(asked):
    names = ("person", "person", "person", "dog", "cat", "cat")
    objects = Objects(names, tuple((float(i), 0.0, i + 1.0, 1.0) for i in range(6)), 10)
    boxes = drawn_boxes(asked, objects, 20)
    assert [box.rectangle[0] for box in boxes] == [0, 2, 6]
    assert boxes[2].colour == colour_of("the dog")
    assert boxes[1].rectangle == (2, 0, 4, 2)
    only_rationale = replace(asked, question=("Why", "?"))
    assert [box.rectangle[0] for box in drawn_boxes(only_rationale, objects, 20)] == [2, 6]


def test_the_third_object_of_a_list_has_no_name_there_and_is_not_drawn(asked):
    objects = Objects(("person",) * 4, tuple((float(i), 0.0, i + 1.0, 1.0) for i in range(4)), 10)
    listed = replace(asked, question=("Do", (2, 0, 3), "talk", "?"), rationales=((),) * 4)
    assert [box.rectangle[0] for box in drawn_boxes(listed, objects, 10)] == [0, 2]


def test_a_mirrored_box_exchanges_its_sides():
    assert mirrored([DrawnBox((10, 1, 30, 5), (1, 2, 3))], 100) == [DrawnBox((70, 1, 90, 5), (1, 2, 3))]
    assert mirrored(mirrored([DrawnBox((10, 1, 30, 5), (1, 2, 3))], 64), 64)[0].rectangle == (10, 1, 30, 5)


def test_boxes_tint_their_inside_and_are_opaque_at_the_edge():
    drawn = draw_boxes(np.zeros((40, 60, 3), np.uint8), [DrawnBox((10, 10, 30, 30), (255, 128, 0))])
    assert (drawn[10, 10:31] == (255, 128, 0)).all()
    assert (drawn[20, 11] == (255, 128, 0)).all()
    assert (drawn[20, 20] == (32, 16, 0)).all()
    assert not drawn[5].any()


def test_a_later_box_covers_an_earlier_one():
    boxes = [DrawnBox((0, 0, 20, 20), (255, 0, 0)), DrawnBox((10, 10, 30, 30), (0, 255, 0))]
    assert (draw_boxes(np.zeros((40, 40, 3), np.uint8), boxes)[10, 15] == (0, 255, 0)).all()


def test_corners_in_the_wrong_order_are_drawn_all_the_same():
    swapped, ordered = (
        draw_boxes(np.zeros((40, 40, 3), np.uint8), [DrawnBox(corners, (255, 0, 0))])
        for corners in ((20, 20, 5, 5), (5, 5, 20, 20))
    )
    assert np.array_equal(swapped, ordered)


def test_colours_are_neither_dark_nor_equal():
    colours = [colour_of(f"Person {i}") for i in range(20)]
    assert len(set(colours)) == 20
    assert min(max(colour) for colour in colours) > 100
