import random
from collections import Counter
from itertools import islice

import pytest

from reserve.synthetic.datasets.wording import ATTRIBUTES, arranged, moves, positions, stamp, things, wrong_values
from reserve.synthetic.story import Scene
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
        wrong = wrong_values("colour", "red", 3, rng, likely=["blue", "red", "blue"], also_right=["green"])
        assert wrong[0] == "blue"
        assert len(set(wrong)) == 3
        assert not {"red", "green"} & set(wrong)


def test_right_answers_are_balanced_over_positions():
    assert set(Counter(islice(positions(5, random.Random(0)), 50)).values()) == {10}
    assert arranged("right", ["a", "b", "c"], 2, random.Random(0))[2] == "right"


def test_stamps():
    assert stamp(3723.456, ":") == "01:02:03.456"
    assert stamp(3723.456, ".", 2) == "01.02.03.45"
