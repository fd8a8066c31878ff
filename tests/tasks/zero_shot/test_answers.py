from __future__ import annotations

import json

from reserve.tasks.zero_shot.answers import answer_vocabulary


def test_vocabularies_are_the_references(shared_dir):
    case = json.loads((shared_dir / "golden/msrvtt.json").read_text())
    for vocabulary in case["vocabularies"]:
        assert answer_vocabulary(case["train_answers"], vocabulary["size"]) == vocabulary["vocabulary"]


def test_ties_make_it_longer():
    assert answer_vocabulary("bacab", 1) == ["b", "a"]
    assert answer_vocabulary("bacab", 3) == ["b", "a", "c"]
    assert answer_vocabulary("", 3) == []
