"""EPIC-KITCHENS-100 anticipation: from scores of actions to verbs and nouns, and the metrics (SPEC 10.11)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reserve.tasks.scores import Score, statistic_score
from reserve.tasks.zero_shot.readout import ranked

TOP = 5
VERBS, NOUNS = 97, 300
"""Classes of the data set."""
SUBMITTED_ACTIONS = 100


def noun_name(key: str) -> str:
    """The name of a noun class: "board:chopping" is "chopping board"."""
    return " ".join(reversed(key.split(":")))


@dataclass(frozen=True)
class Action:
    """A verb and a noun by class and by name."""

    verb: int
    noun: int
    verb_name: str
    noun_name: str

    @property
    def text(self) -> str:
        """What the model compares: "take chopping board"."""
        return f"{self.verb_name} {self.noun_name}"


@dataclass(frozen=True)
class TopFive:
    """The best five actions of a question, and the first five distinct verbs and nouns in the order of its actions."""

    actions: list[str]
    verbs: list[str]
    nouns: list[str]


def top_five(logits: np.ndarray, actions: Sequence[Action], *, first_words: bool = False) -> TopFive:
    """The best five of each kind by the logits [actions]; equal ones in their order.

    With `first_words`, as the released evaluation has it, a noun is the first word of its name: "chopping board" counts
    as "chopping", which is no noun of the data set.
    """
    order = ranked(logits)
    nouns = (actions[i].noun_name.split()[0] if first_words else actions[i].noun_name for i in order)
    return TopFive(
        [actions[i].text for i in order[:TOP]],
        _first_distinct(actions[i].verb_name for i in order),
        _first_distinct(nouns),
    )


def _first_distinct(names: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        found[name] = None
        if len(found) == TOP:
            break
    return list(found)


KINDS = ("verb", "noun", "action")


def hits(top: TopFive, truth: Action) -> dict[str, bool]:
    """Whether the truth is first (`verb_1`) and among the first five (`verb_5`), of each kind."""
    names = (truth.verb_name, truth.noun_name, truth.text)
    found = zip(KINDS, (top.verbs, top.nouns, top.actions), names, strict=True)
    return {f"{kind}_{k}": name in best[:k] for kind, best, name in found for k in (1, TOP)}


def class_mean_recall(hit: np.ndarray, classes: np.ndarray) -> float:
    """The share of hits of each class, averaged over the classes that occur; NaN without any."""
    if not len(classes):
        return float("nan")
    _, of = np.unique(classes, return_inverse=True)
    return float((np.bincount(of, hit) / np.bincount(of)).mean())


def recall_score(
    name: str, hit: np.ndarray, classes: np.ndarray, members: np.ndarray, *, groups: np.ndarray | None = None
) -> Score:
    """The class-mean recall of the questions where `members` is true, with its interval; `groups` as in mean_score."""
    # Small numbers for the classes, so that no sample sorts them again.
    _, of = np.unique(classes[members], return_inverse=True)
    own, count = hit[members].astype(np.float64), int(of.max(initial=-1)) + 1

    def statistic(chosen: np.ndarray) -> float:
        sizes = np.bincount(of[chosen], minlength=count)
        sums = np.bincount(of[chosen], own[chosen], minlength=count)
        return float((sums[sizes > 0] / sizes[sizes > 0]).mean())

    return statistic_score(name, statistic, len(own), groups=None if groups is None else groups[members])


def submitted(logits: np.ndarray | None, actions: Sequence[Action]) -> dict[str, dict[str, float]]:
    """A question's entry in the challenge's JSON: a score for every verb and noun class, and for 100 actions.

    A verb's or noun's score is that of its best action, so that they rank as in `top_five`. Classes without an action,
    and questions without logits, get less than all others.
    """
    if logits is None:
        logits = np.zeros(len(actions), np.float32)
    lowest = float(logits.min()) - 1
    verbs, nouns = np.full(VERBS, lowest), np.full(NOUNS, lowest)
    np.maximum.at(verbs, [action.verb for action in actions], logits)
    np.maximum.at(nouns, [action.noun for action in actions], logits)
    best = ranked(logits, SUBMITTED_ACTIONS)
    return {
        "verb": {str(number): _rounded(score) for number, score in enumerate(verbs)},
        "noun": {str(number): _rounded(score) for number, score in enumerate(nouns)},
        "action": {f"{actions[i].verb},{actions[i].noun}": _rounded(logits[i]) for i in best},
    }


def _rounded(score: np.floating[Any]) -> float:
    """As many digits as a float32 logit has."""
    return round(float(score), 6)
