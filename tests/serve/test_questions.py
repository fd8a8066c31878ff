"""What is sent is checked before anything is computed."""

from __future__ import annotations

import pytest

from reserve.serve.limits import Limits
from reserve.serve.questions import Question, Search, Sound

LIMITS = Limits()
ASKED = {"question": "who is ___?", "answers": ["ann", " ben ", ""]}
SEARCHED = {"text": " a red circle ", "videos": ["f-1", "f-2", "f-1"]}


def test_underscores_stand_for_the_mask_and_empty_answers_are_left_out():
    assert Question.from_json(ASKED, LIMITS) == Question("who is <|MASK|>?", ("ann", "ben"), 0.0, None)
    question = Question.from_json(ASKED | {"start": 1, "stop": 2.5}, LIMITS)
    assert (question.start, question.stop) == (1.0, 2.5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question": " "}, "the question is empty"),
        ({"question": 3}, "the question is empty"),
        ({"question": "x" * 1001}, "1001 characters; at most 1000"),
        ({"answers": "ab"}, "answers must be a list"),
        ({"answers": [1, 2]}, "answers must be a list"),
        ({"answers": ["one", " "]}, "give 2 to 50 answers; got 1"),
        ({"answers": ["a"] * 51}, "got 51"),
        ({"answers": ["a", "b" * 301]}, "300 characters"),
        ({"start": -1}, "start must be a time"),
        ({"start": float("nan")}, "start must be a time"),
        ({"stop": True}, "stop must be a time"),
        ({"stop": 10**400}, "stop must be a time"),
        ({"stop": 0}, "the end must be after the start"),
        ({"device": "cuda"}, "unknown field 'device'"),
    ],
)
def test_what_cannot_be_asked_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        Question.from_json(ASKED | changed, LIMITS)


def test_a_search_may_be_in_all_videos():
    assert Search.from_json(SEARCHED | {"videos": "all"}, LIMITS).videos is None


def test_a_search_is_for_a_text_or_a_sound():
    assert Search.from_json(SEARCHED, LIMITS) == Search("a red circle", ("f-1", "f-2"), 20)
    sound = {"video": "f-1", "start": 0, "stop": 5}
    assert Search.from_json({"sound": sound, "videos": ["f-2"]}, LIMITS).wanted == Sound("f-1", 0.0, 5.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sound": {}}, "a text or for a sound"),
        ({"text": ""}, "the text is empty"),
        ({"videos": []}, "at least one id"),
        ({"videos": [1]}, "at least one id"),
        ({"most": 0}, "most must be from 1 to 200"),
        ({"most": 1e9}, "most must be from 1 to 200"),
    ],
)
def test_what_cannot_be_searched_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        Search.from_json(SEARCHED | changed, LIMITS)


@pytest.mark.parametrize("sound", [{}, 3, {"video": "f-1", "start": 5, "stop": 5}, {"video": 1, "start": 0, "stop": 1}])
def test_a_sound_needs_a_span(sound):
    with pytest.raises(ValueError):
        Search.from_json({"sound": sound, "videos": ["f-1"]}, LIMITS)


@pytest.mark.parametrize("sent", [None, [], "text", 1])
def test_only_objects_are_read(sent):
    with pytest.raises(ValueError, match="expected a JSON object"):
        Question.from_json(sent, LIMITS)
