import random
from collections import Counter
from itertools import islice

import pytest

from reserve.synthetic.datasets.wording import ATTRIBUTES, arranged, moves, positions, stamp, things, wrong_values
from reserve.synthetic.story import COLOURS, SHAPES, Scene, is_held_out
from tests.helpers.scene_truth import mentioned

ONE, TWO = Scene("red", "cross", 1, "grow", "space"), Scene("red", "cross", 2, "left", "sea")


def test_verbs_and_nouns_agree():
    assert (things(ONE), moves("grow", ONE), moves("left", ONE)) == ("cross", "grows and shrinks", "slides left")
    assert (things(TWO), moves("grow", TWO), moves("left", TWO)) == ("crosses", "grow and shrink", "slide left")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("scene", [ONE, TWO])
def test_a_clause_names_its_value_and_no_other(attribute, scene):
    for value in ATTRIBUTES[attribute].values:
        named = {
            name: values for name, values in mentioned(ATTRIBUTES[attribute].clause(value, scene)).items() if values
        }
        assert named == {attribute: {value}}
    assert ATTRIBUTES[attribute].of(scene) == getattr(scene, attribute)


def test_wrong_values_are_wrong_and_begin_with_the_likely_ones():
    rng = random.Random(0)
    for _ in range(50):
        wrong = wrong_values("colour", ONE, 3, rng, likely=["blue", "red", "blue"], also_right=["green"])
        assert wrong[0] == "blue"
        assert len(set(wrong)) == 3
        assert not {"red", "green"} & set(wrong)


@pytest.mark.parametrize("shape", SHAPES)
def test_wrong_values_make_no_pair_that_training_never_shows(shape):
    rng = random.Random(0)
    scene = Scene(next(colour for colour in COLOURS if not is_held_out(colour, shape)), shape, 1, "left", "sea")
    held_out = [colour for colour in COLOURS if is_held_out(colour, shape)]
    assert len(held_out) == 2
    colours = wrong_values("colour", scene, 7, rng, likely=held_out)
    assert sorted([*colours, scene.colour, *held_out]) == sorted(COLOURS)
    assert not any(is_held_out(scene.colour, other) for other in wrong_values("shape", scene, 7, rng))


def test_right_answers_are_balanced_over_positions():
    assert set(Counter(islice(positions(5, random.Random(0)), 50)).values()) == {10}
    assert arranged("right", ["a", "b", "c"], 2, random.Random(0))[2] == "right"


def test_stamps():
    assert stamp(3723.456, ":") == "01:02:03.456"
    assert stamp(3723.456, ".", 2) == "01.02.03.45"
