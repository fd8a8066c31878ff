from __future__ import annotations

import pytest

from reserve.tasks.zero_shot.star_statements import past, star_option, star_statement


@pytest.mark.parametrize(
    ("question", "statement"),
    [
        # A question of every template of the benchmark.
        ("Which object was tidied up by the person?", "<|MASK|> was tidied up by the person."),
        ("What did the person do with the phone/camera?", "the person<|MASK|> the phone/camera."),
        (
            "What did the person do while they were holding the bag?",
            "the person<|MASK|> while they were holding the bag.",
        ),
        (
            "What did the person do while they were touching the bag and wearing the shoe?",
            "the person<|MASK|> while they were touching the bag and wearing the shoe.",
        ),
        (
            "Which object did the person take after they opened the door?",
            "the person took<|MASK|> after they opened the door.",
        ),
        (
            "Which object did the person put down before they sat on the table?",
            "the person put down<|MASK|> before they sat on the table.",
        ),
        ("What happened after the person took the book?", "the person<|MASK|> after they took the book."),
        ("What happened before the person took the book?", "the person<|MASK|> before they took the book."),
        (
            "What did the person do to the book after opening the bag?",
            "the person<|MASK|> the book after opening the bag.",
        ),
        (
            "What did the person do to the cup/glass/bottle before closing the box?",
            "the person<|MASK|> the cup/glass/bottle before closing the box.",
        ),
        ("What will the person do next?", "next, the person will<|MASK|>."),
        ("What will the person do next with the book?", "next, the person will<|MASK|> the book."),
        ("Which object would the person put down next?", "next, the person will put down<|MASK|>."),
        (
            "Which object would the person take next after they close the door?",
            "next, the person will take<|MASK|> after they close the door.",
        ),
        ("Which other object is possible to be eaten by the person?", "<|MASK|> can be eaten by the person."),
        ("What else is the person able to do with the door?", "the person is also able to<|MASK|> the door."),
        (
            "Which object is possible to be taken when the person is in front of the table?",
            "<|MASK|> can be taken when the person is in front of the table.",
        ),
        (
            "What is the person able to do when they are behind the table?",
            "the person is able to<|MASK|> when they are behind the table.",
        ),
        (
            "Which object is the person able to throw after washing the dish?",
            "the person is able to throw<|MASK|> after washing the dish.",
        ),
        ("What is the person able to do after taking a bag?", "the person is able to<|MASK|> after taking a bag."),
        # Other wordings
        ("Which place will the person see next?", "next, the person will see<|MASK|>."),
        ("What colour is the door?", "the color of the door is<|MASK|>."),
        ("Which colour did it have?", "which colour did it have?<|MASK|>."),
    ],
)  # fmt: skip
def test_questions_become_statements(question, statement):
    assert star_statement(question) == statement


def test_no_question_has_no_statement():
    assert star_statement(" ? ") is None


@pytest.mark.parametrize(
    ("verb", "expected"),
    [("tidy up", "tidied up"), ("put down", "put down"), ("close", "closed"), ("wash", "washed"), ("throw", "threw")],
)
def test_past_of_verbs(verb, expected):
    assert past(verb) == expected


def test_options_lose_their_full_stop():
    assert star_option("The clothes.") == "The clothes"
    assert star_option(" Put down. ") == "Put down"
