"""Beside the recorded cases of tests/parity: what they do not have."""

from __future__ import annotations

import pytest

from reserve.tasks.vcr.text import mentions_a_side, object_names, rationale_query, sentence


def test_objects_are_named_by_class_and_number():
    names = object_names(["person", "cell phone", "person", "traffic light", "traffic light"])
    assert names == ["Person 1", "the cell phone", "Person 2", "Traffic light 1", "Traffic light 2"]


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["Is", (0,), "'", "s", "dog", "here", "?"], "Is Person 1's dog here?"),
        (["Time", ":", "now"], "Time now"),
        (["Answer:", "a:b"], "Answer: a b"),
        ([(1, 0, 1)], "the dog and Person 1"),
        (["do", "n't", "."], "don't."),
        (["a-;b"], "a b"),
        ([], ""),
    ],
)
def test_tokens_become_a_sentence(tokens, text):
    assert sentence(tuple(tokens), ["Person 1", "the dog"]) == text


def test_the_query_of_a_rationale_holds_the_answer():
    assert rationale_query("Why?", "So.") == "Why? Answer: So."


@pytest.mark.parametrize(("word", "found"), [("left", True), ("bright", True), ("Left", False), ("centre", False)])
def test_a_side_is_found_in_any_sentence(word, found):
    assert mentions_a_side(["Why?", f"It is {word}."]) is found
