from dataclasses import replace
from pathlib import Path

import pytest

from reserve.synthetic.datasets.scenes import Story, TimedScene
from reserve.synthetic.narration import CRIES, WHERES, plural
from reserve.synthetic.scene_questions import CHOICES, phrase_of, scene_questions
from reserve.synthetic.story import COLOURS, SHAPES, Scene, is_held_out, plan_story


def story(index: int) -> Story:
    scenes = plan_story(0, "heldout", index, 10)
    timed = (TimedScene(scene, 9.0 * number, 9.0 * number + 9.0) for number, scene in enumerate(scenes))
    return Story(Path("story.mp4"), "heldout", index, tuple(timed))


@pytest.fixture(scope="module")
def asked():
    return [(one, question) for one in map(story, range(30)) for question in scene_questions(one)]


def scene_of(one: Story, start: float) -> Scene:
    return one.scene_at(start).scene


def test_each_kind_is_asked_once_about_a_whole_scene(asked):
    for one, question in asked:
        assert (question.start, question.end) in [(timed.start, timed.end) for timed in one.usual_scenes]
    assert [question.kind for _, question in asked[:3]] == ["seen", "where", "heard"]


def test_the_right_answer_is_what_the_scene_shows(asked):
    for one, question in asked:
        scene = scene_of(one, question.start)
        match question.kind:
            case "seen":
                assert question.right == phrase_of(scene)
            case "where":
                assert question.right == WHERES[scene.place][0]
            case _:
                assert question.right.split()[0] in (scene.shape, plural(scene.shape))
                assert "{" not in question.right


def test_wrong_answers_differ_and_make_no_pair_that_only_held_out_videos_show(asked):
    for one, question in asked:
        assert len(set(question.answers)) == CHOICES
        assert question.right in question.answers
        scene = scene_of(one, question.start)
        for answer in question.answers:
            if question.kind == "seen":
                assert not is_held_out(answer.split()[1], scene.shape)
            if question.kind == "heard":
                shape = next(s for s in SHAPES if answer.split()[0] in (s, plural(s)))
                assert not is_held_out(scene.colour, shape)


def test_the_right_answer_has_every_position(asked):
    places = [question.answers.index(question.right) for _, question in asked]
    assert all(places.count(position) > len(asked) / CHOICES / 2 for position in range(CHOICES))


def test_answers_agree_in_number():
    one = TimedScene(Scene("red", "circle", 1, "left", "sea"), 0.0, 9.0)
    heard = {n: scene_questions(Story(Path("a.mp4"), "train", 0, (replace(one, scene=scene),)))[2].right for n, scene in
             ((1, one.scene), (2, replace(one.scene, count=2)))}  # fmt: skip
    assert CRIES["circle"][1] == "{verb|hum} softly"
    assert heard == {1: "circle hums softly", 2: "circles hum softly"}


def test_questions_depend_on_the_seed_alone():
    assert scene_questions(story(0)) == scene_questions(story(0))
    assert scene_questions(story(0)) != scene_questions(story(0), seed=1)


def test_questions_name_what_is_not_asked_for(asked):
    for one, question in asked:
        scene = scene_of(one, question.start)
        assert question.text.count("<|MASK|>") == 1
        if question.kind == "seen":
            assert not set(COLOURS) & set(question.text.split())
        else:
            assert scene.colour in question.text
