"""EPIC-KITCHENS-100 action anticipation, zero-shot: what will happen a second from now (SPEC 10.11).

As in the released scripts, the model sees eight segments of 2 s up to one second before the action. It hears seven; the
last one has the text "My next action is <|MASK|>". The options are all actions as "verb noun". Verbs and nouns rank by
their best actions, as in these scripts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from reserve.data.video import Video
from reserve.data.video_sound import TimeSpan
from reserve.errors import BadInput
from reserve.tasks.data_folder import DataFile, FolderCheck, Record, read_table
from reserve.tasks.scores import Score, TaskScores, mean_score
from reserve.tasks.zero_shot.epic_metrics import (
    KINDS,
    NOUNS,
    TOP,
    VERBS,
    Action,
    TopFive,
    hits,
    noun_name,
    recall_score,
    submitted,
    top_five,
)
from reserve.tasks.zero_shot.reader import Query
from reserve.tasks.zero_shot.task import Answer, Question, ZeroShotTask, closing_statement

PROMPT = "My next action is <|MASK|>"
SEGMENTS, SEGMENT_SECONDS, ANTICIPATION_SECONDS = 8, 2, 1
_ANNOTATIONS = "the annotations, github.com/epic-kitchens/epic-kitchens-100-annotations"
_FILES = {
    "val": DataFile("EPIC_100_validation.csv", "the actions of the validation videos", _ANNOTATIONS),
    "test": DataFile("EPIC_100_test_timestamps.csv", "the times of the actions of the test videos", _ANNOTATIONS),
}
_VERBS = DataFile("EPIC_100_verb_classes.csv", "the verb classes", _ANNOTATIONS)
_NOUNS = DataFile("EPIC_100_noun_classes.csv", "the noun classes", _ANNOTATIONS)
_TRAIN = DataFile(
    "EPIC_100_train.csv", "the actions of the training videos, the options if there is no actions.csv", _ANNOTATIONS
)
_TAIL_VERBS = DataFile("EPIC_100_tail_verbs.csv", "the rare verb classes", _ANNOTATIONS)
_TAIL_NOUNS = DataFile("EPIC_100_tail_nouns.csv", "the rare noun classes", _ANNOTATIONS)
_UNSEEN = DataFile("EPIC_100_unseen_participant_ids_validation.csv", "who is not in the training videos", _ANNOTATIONS)
_ACTIONS = "actions.csv"
_TIMESTAMP = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)", re.ASCII)


@dataclass(frozen=True)
class AnticipationQuestion(Question):
    """An action to anticipate: its `start` in seconds, who does it, and the `truth` (None in the test split)."""

    start: float
    participant: str
    truth: Action | None


def seconds_of(timestamp: str) -> float:
    """A time such as 00:05:27.84 in seconds: the nearest float, as in the release. Raises ValueError."""
    match = _TIMESTAMP.fullmatch(timestamp.strip())
    if match is None:
        raise ValueError(f"{timestamp!r} is not hh:mm:ss.ff")
    hours, minutes, seconds = map(Decimal, match.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def anticipation_segments(start: float) -> tuple[TimeSpan, ...]:
    """Eight segments of 2 s up to one second before an action that begins at `start` seconds.

    They are found from the last one back and rounded to 10 ms. Near the start of the video they shrink to nothing.
    """
    end: float = max(start - ANTICIPATION_SECONDS, 0)
    found = []
    for _ in range(SEGMENTS):
        begin = round(max(end - SEGMENT_SECONDS, 0), 2)
        found.append(TimeSpan(begin, end, round((begin + end) / 2, 2)))
        end = begin
    return tuple(reversed(found))


@dataclass(frozen=True)
class EpicKitchens(ZeroShotTask[AnticipationQuestion]):
    """Anticipate actions in EPIC-KITCHENS-100, a second before they begin.

    `as_released` scores a noun by its first word in the plain accuracies.
    """

    sls_pt: int = 0
    """Supervision level that the predictions declare for pretraining, 0 to 5."""
    sls_tl: int = 0
    """Supervision level that they declare for training labels, 0 to 5."""
    sls_td: int = 0
    """Supervision level that they declare for training data, 0 to 5."""

    name: ClassVar[str] = "epic-kitchens"
    splits: ClassVar[tuple[str, ...]] = ("val", "test")
    released: ClassVar[bool] = True
    video_source: ClassVar[str] = "epic-kitchens.github.io (videos P01_01.MP4 and so on)"

    def __post_init__(self) -> None:
        super().__post_init__()
        for level in ("sls_pt", "sls_tl", "sls_td"):
            if not 0 <= getattr(self, level) <= 5:
                raise ValueError(f"{level} must be 0 to 5; got {getattr(self, level)}")

    @cached_property
    def verbs(self) -> dict[int, str]:
        """Names of the verb classes."""
        return _class_names(read_table(_VERBS.within(self.data), ["id", "key"]), VERBS)

    @cached_property
    def nouns(self) -> dict[int, str]:
        """Names of the noun classes, with their words in the usual order."""
        names = _class_names(read_table(_NOUNS.within(self.data), ["id", "key"]), NOUNS)
        return {number: noun_name(key) for number, key in names.items()}

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        """The options: those of actions.csv, or else every pair of a verb and a noun in the training annotations."""
        path = self.data / _ACTIONS
        if path.exists():
            found = [_listed_action(row) for row in read_table(path, ["id", "verb", "noun", "action"])]
        else:
            path = _TRAIN.within(self.data)
            rows = read_table(path, ["verb_class", "noun_class"])
            found = [self._action(verb, noun) for verb, noun in sorted({_classes(row) for row in rows})]
        if not found:
            raise BadInput(f"{path} has no actions, which are the options")
        return tuple(found)

    def _action(self, verb: int, noun: int) -> Action:
        for number, names, file in ((verb, self.verbs, _VERBS), (noun, self.nouns, _NOUNS)):
            if number not in names:
                raise BadInput(f"{self.data / file.path} has no class {number}, which an annotation has")
        return Action(verb, noun, self.verbs[verb], self.nouns[noun])

    @property
    def options(self) -> Sequence[str]:
        return [action.text for action in self.actions]

    def read_questions(self) -> list[AnticipationQuestion]:
        labelled = self.split == "val"
        columns = ["narration_id", "participant_id", "video_id", "start_timestamp"]
        rows = read_table(_FILES[self.split].within(self.data), columns + ["verb_class", "noun_class"] * labelled)
        return [self._question(row, labelled) for row in rows]

    def _question(self, row: Record, labelled: bool) -> AnticipationQuestion:
        try:
            start = seconds_of(row.text("start_timestamp"))
        except ValueError as error:
            raise BadInput(
                f"{row.where}: 'start_timestamp' must be hh:mm:ss.ff; got {row.text('start_timestamp')!r:.80}"
            ) from error
        return AnticipationQuestion(
            key=row.text("narration_id"),
            video=row.text("video_id"),
            start=start,
            participant=row.text("participant_id"),
            truth=self._action(*_classes(row)) if labelled else None,
        )

    def query(self, question: AnticipationQuestion, video: Video) -> Query:
        return closing_statement(anticipation_segments(question.start), PROMPT)

    def check_more(self, check: FolderCheck) -> None:
        if self.split == "val":
            check.attempt(lambda _: self._listed(_TAIL_VERBS, "verb"), self.data)
            check.attempt(lambda _: self._listed(_TAIL_NOUNS, "noun"), self.data)
            check.attempt(lambda _: self._unseen(), self.data)

    def scores(self, answers: Sequence[Answer]) -> TaskScores:
        source = _ACTIONS if (self.data / _ACTIONS).exists() else _TRAIN.path
        notes = (f"options: the {len(self.actions)} actions of {source}", *self.failure_notes(answers))
        if self.split == "test":
            return TaskScores(self.name, self.split, (), (*notes, "the test split has no labels"))
        found = self._hits(answers, first_words=False)
        plain = self._hits(answers, first_words=True) if self.as_released else found
        return TaskScores(
            self.name, self.split, (*self._accuracies(plain), *self._recalls(found)), (*notes, self._noun_note)
        )

    @property
    def _noun_note(self) -> str:
        how = "by their first word, as released" if self.as_released else "by their whole names"
        return f"plain accuracies compare nouns {how}"

    def _hits(self, answers: Sequence[Answer], first_words: bool) -> dict[str, np.ndarray]:
        nothing = TopFive([], [], [])
        rows = []
        for question, answer in zip(self.questions, answers, strict=True):
            assert question.truth is not None
            found = nothing if answer.logits is None else top_five(answer.logits, self.actions, first_words=first_words)
            rows.append(hits(found, question.truth))
        return {f"{kind}_{k}": np.array([row[f"{kind}_{k}"] for row in rows], bool) for kind in KINDS for k in (1, TOP)}

    def _accuracies(self, found: Mapping[str, np.ndarray]) -> list[Score]:
        groups = self._videos()
        return [mean_score(f"{kind}, top-{k}", found[f"{kind}_{k}"], groups=groups) for k in (1, TOP) for kind in KINDS]

    def _videos(self) -> np.ndarray:
        """The video of each question, as a number: its questions are resampled together."""
        return np.unique([question.video for question in self.questions], return_inverse=True)[1]

    def _recalls(self, found: Mapping[str, np.ndarray]) -> list[Score]:
        truths = [question.truth for question in self.questions if question.truth is not None]
        verb, noun = (np.array([getattr(truth, kind) for truth in truths], np.int64) for kind in ("verb", "noun"))
        classes = {"verb": verb, "noun": noun, "action": verb * 1000 + noun}
        tail_verb, tail_noun = (
            np.isin(verb, self._listed(_TAIL_VERBS, "verb")),
            np.isin(noun, self._listed(_TAIL_NOUNS, "noun")),
        )
        unseen = self._unseen()
        everyone = np.ones(len(truths), bool)
        new = np.array([question.participant in unseen for question in self.questions], bool)
        members = {
            "overall": dict.fromkeys(KINDS, everyone),
            "unseen": dict.fromkeys(KINDS, new),
            "tail": {"verb": tail_verb, "noun": tail_noun, "action": tail_verb | tail_noun},
        }
        return [
            recall_score(
                f"{kind}, class-mean recall@{TOP}, {part}",
                found[f"{kind}_{TOP}"],
                classes[kind],
                who[kind],
                groups=self._videos(),
            )
            for part, who in members.items()
            for kind in KINDS
        ]

    def _listed(self, file: DataFile, column: str) -> list[int]:
        return [row.whole(column) for row in read_table(file.within(self.data), [column])]

    def _unseen(self) -> set[str]:
        return {row.text("participant_id") for row in read_table(_UNSEEN.within(self.data), ["participant_id"])}

    def predictions(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The challenge's JSON, version 0.2."""
        return {
            "version": "0.2",
            "challenge": "action_anticipation",
            "sls_pt": self.sls_pt,
            "sls_tl": self.sls_tl,
            "sls_td": self.sls_td,
            "results": {
                question.key: submitted(answer.logits, self.actions)
                for question, answer in zip(self.questions, answers, strict=True)
            },
        }


def _class_names(rows: Sequence[Record], count: int) -> dict[int, str]:
    return {_class(row, "id", count): row.text("key") for row in rows}


def _class(row: Record, column: str, count: int) -> int:
    number = row.whole(column)
    if not 0 <= number < count:
        raise BadInput(f"{row.where}: {column!r} must be 0 to {count - 1}; got {number}")
    return number


def _classes(row: Record) -> tuple[int, int]:
    return _class(row, "verb_class", VERBS), _class(row, "noun_class", NOUNS)


def _listed_action(row: Record) -> Action:
    """A row of actions.csv."""
    verb, space, noun = row.text("action").partition(" ")
    if not verb or not space or not noun:
        raise BadInput(f"{row.where}: 'action' must be a verb and a noun; got {row.text('action')!r:.80}")
    return Action(_class(row, "verb", VERBS), _class(row, "noun", NOUNS), verb, noun_name(noun))
