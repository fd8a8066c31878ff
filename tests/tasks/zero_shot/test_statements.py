from __future__ import annotations

import json

import pytest

from reserve.errors import BadInput
from reserve.tasks.zero_shot.statements import attach_mask, filled_blank, question_statement, read_statements


def test_templates_are_the_references(shared_dir):
    for case in json.loads((shared_dir / "golden/msrvtt.json").read_text())["templates"]:
        found = filled_blank(case["completion"])
        assert found == (case["text_at_inference"] if case["usable"] else None)


def test_a_mask_is_taken_as_a_blank():
    assert filled_blank("a man is <|MASK|> now.") == "a man is<|MASK|> now."
    assert filled_blank("_ and <|MASK|>") is None
    assert filled_blank("") is None
    assert attach_mask("<|MASK|> is  <|MASK|>") == "<|MASK|> is <|MASK|>"


@pytest.mark.parametrize(
    ("question", "statement"),
    [
        ("what is a man doing?", "a man is<|MASK|>."),
        ("What  are two girls and a guy doing", "two girls and a guy are<|MASK|>."),
        ("who is riding a bike on a narrow trail?", "<|MASK|> is riding a bike on a narrow trail."),
        ("what is playing?", "<|MASK|> is playing."),
        ("what is a family having?", "a family is having<|MASK|>."),
        ("what are three people sitting on?", "three people are sitting on<|MASK|>."),
        ("what is a woman singing with others?", "a woman is singing<|MASK|> with others."),
        ("what color is the car?", "the color of the car is<|MASK|>."),
        ("what kind of car is shown?", "<|MASK|> car is shown."),
        ("how many people are dancing?", "<|MASK|> people are dancing."),
        ("where is a man singing?", "a man is singing in<|MASK|>."),
        ("where are the dogs?", "the dogs are in<|MASK|>."),
        ("who talks about space dust?", "<|MASK|> talks about space dust."),
        ("what plays?", "<|MASK|> plays."),
        ("who is covered in goo on late night tv?", "<|MASK|> is covered in goo on late night tv."),
        ("what does a chef shred?", "a chef does shred<|MASK|>."),
        ("what does a chef cut a bell pepper in?", "a chef does cut a bell pepper in<|MASK|>."),
        ("what does a man cut on the table?", "a man does cut<|MASK|> on the table."),
        ("what do people talk about?", "people do talk about<|MASK|>."),
        ("what do two men in suits talk about?", "what do two men in suits talk about?<|MASK|>."),
        ("what did the girl in a red dress do?", "the girl in a red dress did<|MASK|>."),
        ("which man sings?", "which man sings?<|MASK|>."),
        ("when are the children ready?", "when are the children ready?<|MASK|>."),
    ],
)
def test_questions_become_statements(question, statement):
    assert question_statement(question) == statement


@pytest.mark.parametrize("question", ["", " ?", "what is <|MASK|> doing?"])
def test_what_is_no_question_has_no_statement(question):
    assert question_statement(question) is None


def test_every_genuine_question_has_one_mask(shared_dir):
    rows = json.loads((shared_dir / "realdata/annotations/msrvtt_qa/val_qa.head.json").read_text())
    statements = [question_statement(row["question"]) for row in rows]
    assert all(statement is not None and statement.count("<|MASK|>") == 1 for statement in statements)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"7": "it is _", "8": "_"}'),
        ("a.json", '[{"id": 7, "statement": "it is _"}, {"id": "8", "statement": "_"}]'),
        ("a.jsonl", '{"id": 7, "statement": "it is _"}\n{"id": 8, "statement": "_"}\n'),
    ],
)
def test_statements_are_read_from_several_forms(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_statements(tmp_path / name) == {"7": "it is _", "8": "_"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("3", "must hold a map of ids to statements, or a list; got int"),
        ('{"7": 3}', "'7' must be text; got 3"),
        ('[{"id": 7}]', "entry 1 has no 'statement'"),
        ("{", "is not JSON"),
    ],
)
def test_broken_statements_are_named(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(BadInput, match=message) as error:
        read_statements(tmp_path / "a.json")
    assert "a.json" in str(error.value)
