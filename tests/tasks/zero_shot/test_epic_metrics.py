from __future__ import annotations

import csv
import json
from dataclasses import astuple

import numpy as np
import pytest

from reserve.tasks.zero_shot.epic_metrics import (
    NOUNS,
    VERBS,
    Action,
    class_mean_recall,
    hits,
    noun_name,
    recall_score,
    submitted,
    top_five,
)


@pytest.fixture(scope="module")
def case(shared_dir):
    return json.loads((shared_dir / "golden/ek100.json").read_text())


@pytest.fixture(scope="module")
def actions(case):
    rows = [(verb, noun, *text.split(" ")) for _, verb, noun, text in case["rows"]]
    return [Action(verb, noun, verb_name, noun_name(key)) for verb, noun, verb_name, key in rows]


def truth_of(sample, actions):
    return next(action for action in actions if action.text == sample["truth"]["action"])


def test_texts_are_the_references(case, actions):
    assert [action.text for action in actions] == case["action_text"]


def test_the_texts_of_the_data_set_differ(shared_dir):
    with (shared_dir / "realdata/annotations/ek100/actions.csv").open(newline="") as file:
        texts = [row["action"].split(" ") for row in csv.DictReader(file)]
    named = {f"{verb} {noun_name(noun)}" for verb, noun in texts}
    assert len(named) == len(texts) == 3806
    several = {noun_name(noun) for _, noun in texts if ":" in noun}
    assert len(several) == 33


def test_the_best_five_are_the_references(case, actions):
    for scores, sample in zip(case["scores"], case["samples"], strict=True):
        logits = np.array(scores, np.float32)
        released = top_five(logits, actions, first_words=True)
        assert astuple(released) == (sample["top5_actions"], sample["top5_verbs"], sample["top5_nouns"])
        assert top_five(logits, actions).nouns == sample["top5_nouns_whole_names"]
        assert hits(released, truth_of(sample, actions)) == sample["hits"]


def test_accuracies_are_the_references(case, actions):
    found = [
        hits(top_five(np.array(scores), actions, first_words=True), truth_of(sample, actions))
        for scores, sample in zip(case["scores"], case["samples"], strict=True)
    ]
    for name, value in case["accuracy"].items():
        assert np.mean([row[name] for row in found]) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("kind", ["verb", "noun", "action"])
def test_class_mean_recalls_are_the_references(case, actions, kind):
    hit, names = [], []
    for scores, sample in zip(case["scores"], case["samples"], strict=True):
        hit.append(hits(top_five(np.array(scores), actions), truth_of(sample, actions))[f"{kind}_5"])
        names.append(sample["truth"][kind])
    expected = case["class_mean_top5_recall_of_these"][kind]["mean"]
    assert class_mean_recall(np.array(hit), np.array(names)) == pytest.approx(expected, abs=1e-12)
    score = recall_score("x", np.array(hit), np.array(names), np.ones(len(hit), bool))
    assert score.value == pytest.approx(expected, abs=1e-12)
    assert score.low <= score.value <= score.high


def test_a_small_case_by_hand(case):
    hand = case["hand_case"]
    best = np.argsort(-np.array(hand["scores"]), axis=1, kind="stable")[:, :5]
    assert best.tolist() == hand["top5"]
    labels = np.array(hand["labels"])
    hit = (best == labels[:, None]).any(1)
    assert class_mean_recall(hit, labels) == pytest.approx(hand["class_mean"])


def test_recall_counts_the_members_alone():
    hit, classes = np.array([1, 0, 1, 1], bool), np.array([4, 4, 9, 9])
    assert recall_score("x", hit, classes, np.array([1, 1, 1, 0], bool)).value == 0.75
    nobody = recall_score("x", hit, classes, np.zeros(4, bool))
    assert nobody.count == 0
    assert np.isnan(nobody.value)
    assert np.isnan(class_mean_recall(np.zeros(0), np.zeros(0)))


def test_equal_scores_keep_the_order_of_the_actions():
    actions = [Action(n, n, f"verb{n}", f"noun{n}") for n in range(7)]
    assert top_five(np.zeros(7), actions).verbs == [f"verb{n}" for n in range(5)]


def test_submitted_scores_rank_as_the_best_five(case, actions):
    for scores in case["scores"]:
        entry = submitted(np.array(scores, np.float32), actions)
        assert [len(entry[kind]) for kind in ("verb", "noun", "action")] == [VERBS, NOUNS, len(actions)]
        best = sorted(entry["verb"], key=lambda key: -entry["verb"][key])[:5]
        names = {str(action.verb): action.verb_name for action in actions}
        assert [names[key] for key in best] == top_five(np.array(scores), actions).verbs
        first = max(entry["action"], key=lambda key: entry["action"][key])
        action = actions[int(np.argmax(scores))]
        assert first == f"{action.verb},{action.noun}"


def test_a_hundred_actions_are_submitted():
    actions = [Action(n % VERBS, n % NOUNS, f"v{n % VERBS}", f"n{n}") for n in range(150)]
    entry = submitted(np.arange(150, dtype=np.float32), actions)
    assert len(entry["action"]) == 100
    assert min(entry["action"].values()) == 50
    assert min(entry["noun"].values()) == -1  # nouns without an action
    assert len(submitted(None, actions)["action"]) == 100
