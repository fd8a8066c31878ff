from itertools import pairwise

import pytest

from reserve.synthetic.story import COLOURS, MOTIONS, RECENT_SCENES, ROUTE, SHAPES, Scene, is_held_out, plan_story


def pairs(split: str) -> set[tuple[str, str]]:
    return {(scene.colour, scene.shape) for index in range(30) for scene in plan_story(0, split, index, 14)}


def test_a_fifth_of_the_pairs_is_held_out_evenly():
    for colour in COLOURS:
        assert sum(is_held_out(colour, shape) for shape in SHAPES) == 2
    for shape in SHAPES:
        assert sum(is_held_out(colour, shape) for colour in COLOURS) == 2


def test_training_shows_every_pair_but_the_held_out_ones():
    assert pairs("train") == {(c, s) for c in COLOURS for s in SHAPES if not is_held_out(c, s)}


def test_every_second_scene_of_a_held_out_story_is_a_new_pair():
    story = plan_story(0, "heldout", 5, 12)
    assert [is_held_out(scene.colour, scene.shape) for scene in story] == [True, False] * 6


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_colours_and_shapes_pause_before_they_come_back(split):
    story = plan_story(1, split, 2, 40)
    for number, scene in enumerate(story):
        for recent in story[max(0, number - RECENT_SCENES) : number]:
            assert scene.colour != recent.colour
            assert scene.shape != recent.shape


def test_places_follow_the_route():
    places = [ROUTE.index(scene.place) for scene in plan_story(0, "train", 0, 12)]
    assert {(after - before) % len(ROUTE) for before, after in pairwise(places)} in ({1}, {7})


def test_all_motions_and_counts_occur():
    scenes = [scene for index in range(10) for scene in plan_story(0, "train", index, 14)]
    assert {scene.motion for scene in scenes} == set(MOTIONS)
    assert {scene.count for scene in scenes} == {1, 2, 3}


def test_a_longer_story_begins_the_same():
    assert plan_story(7, "train", 3, 20)[:9] == plan_story(7, "train", 3, 9)


def test_stories_are_the_same_everywhere():
    assert plan_story(0, "train", 0, 2) == [
        Scene("purple", "ring", 1, "up", "city"),
        Scene("green", "triangle", 1, "down", "sea"),
    ]


@pytest.mark.parametrize("other", [(1, "train", 0), (0, "train", 1), (0, "heldout", 0)])
def test_seed_split_and_index_change_the_story(other):
    assert plan_story(*other, 8) != plan_story(0, "train", 0, 8)
