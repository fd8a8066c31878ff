"""STAR, zero-shot: situated reasoning about everyday videos, four choices a question (SPEC 10.10).

The question is a statement with a MASK in the last segment. The wording, the segments and the use of sound are our
choice, since the paper's are not known: the stretch from `start` to `end` is cut into equal segments of at least 3 s,
at most eight, of which all but the last are heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from reserve.data.video import Video
from reserve.errors import BadInput
from reserve.tasks.data_folder import DataFile, FolderCheck, Record, read_json_records
from reserve.tasks.scores import TaskScores, mean_score, statistic_score
from reserve.tasks.zero_shot.reader import Query
from reserve.tasks.zero_shot.star_statements import star_option, star_statement
from reserve.tasks.zero_shot.task import (
    Answer,
    Question,
    Unanswerable,
    ZeroShotTask,
    check_segment_seconds,
    closing_statement,
    equal_segments,
)

TYPES = ("Interaction", "Sequence", "Prediction", "Feasibility")
_SOURCE = "STAR, bobbywu.com/STAR (github.com/csbobby/STAR_Benchmark)"


@dataclass(frozen=True)
class StarQuestion(Question):
    """A question about the stretch from `start` to `end` seconds: its `type`, the choices as indices of the task's
    options with their ids in the data set, and which is right (None in the test split)."""

    type: str
    start: float
    end: float
    statement: str | None
    choices: tuple[int, ...]
    choice_ids: tuple[int, ...]
    right: int | None


@dataclass(frozen=True)
class Star(ZeroShotTask[StarQuestion]):
    """Answer STAR's questions about situations in everyday videos, of four choices each."""

    segment_seconds: float = 3.0
    """Least length of a segment."""

    name: ClassVar[str] = "star"
    video_source: ClassVar[str] = "Charades, prior.allenai.org/projects/charades (scaled to 480p)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_segment_seconds(self.segment_seconds)

    @cached_property
    def _texts(self) -> dict[str, int]:
        """The number of each distinct choice; filled while the questions are read."""
        return {}

    @property
    def options(self) -> Sequence[str]:
        _ = self.questions  # reading them fills the texts
        return list(self._texts)

    def choices(self, question: StarQuestion) -> Sequence[int]:
        return question.choices

    def read_questions(self) -> list[StarQuestion]:
        file = DataFile(f"STAR_{self.split}.json", f"the {self.split} questions", _SOURCE)
        return [self._question(row) for row in read_json_records(file.within(self.data))]

    def _question(self, row: Record) -> StarQuestion:
        key = row.text("question_id")
        kind = key.partition("_")[0]
        if kind not in TYPES:
            raise BadInput(f"{row.where}: 'question_id' must begin with one of {', '.join(TYPES)}; got {key!r:.80}")
        choices = [Record(values, f"{row.where}, choice {n}") for n, values in enumerate(row.list("choices"), 1)]
        if len(choices) < 2:
            raise BadInput(f"{row.where}: 'choices' must hold two or more; got {len(choices)}")
        texts = [choice.text("choice") for choice in choices]
        if row.has("answer") and row.text("answer") not in texts:
            raise BadInput(f"{row.where}: 'answer' must be one of the choices; got {row.text('answer')!r:.80}")
        start, end = row.number("start"), row.number("end")
        if not 0 <= start < end:
            raise BadInput(f"{row.where}: 'start' must be at least 0 and before 'end'; got {start:g} and {end:g}")
        return StarQuestion(
            key=key,
            video=row.text("video_id"),
            type=kind,
            start=start,
            end=end,
            statement=star_statement(row.text("question")),
            choices=tuple(self._texts.setdefault(star_option(text), len(self._texts)) for text in texts),
            choice_ids=tuple(choice.whole("choice_id") for choice in choices),
            right=texts.index(row.text("answer")) if row.has("answer") else None,
        )

    def query(self, question: StarQuestion, video: Video) -> Query:
        if question.statement is None:
            raise Unanswerable("it has no text")
        if question.start >= video.duration:
            raise Unanswerable("its video ends before its stretch begins; videos must be whole")
        segments = equal_segments(question.start, question.end, self.segment_seconds)
        return closing_statement(segments, question.statement)

    def check_more(self, check: FolderCheck) -> None:
        counts = {kind: sum(question.type == kind for question in self.questions) for kind in TYPES}
        check.lines.append(", ".join(f"{kind} {count}" for kind, count in counts.items()))

    def scores(self, answers: Sequence[Answer]) -> TaskScores:
        notes = self.failure_notes(answers)
        if any(question.right is None for question in self.questions):
            return TaskScores(self.name, self.split, (), (*notes, "questions without answers have no scores"))
        right = np.array(
            [
                answer.logits is not None and int(answer.logits.argmax()) == question.right
                for question, answer in zip(self.questions, answers, strict=True)
            ],
            bool,
        )
        chance = np.array([1 / len(question.choices) for question in self.questions])
        kinds = np.array([TYPES.index(question.type) for question in self.questions])
        videos = np.unique([question.video for question in self.questions], return_inverse=True)[1]

        def mean_of_types(chosen: np.ndarray) -> float:
            sizes = np.bincount(kinds[chosen], minlength=len(TYPES))
            sums = np.bincount(kinds[chosen], right[chosen], minlength=len(TYPES))
            return float((sums[sizes > 0] / sizes[sizes > 0]).mean())

        guess = float(chance.mean())
        by_type = []
        for number, kind in enumerate(TYPES):
            own = kinds == number
            expected = float(chance[own].mean()) if own.any() else None
            by_type.append(mean_score(kind, right[own], chance=expected, groups=videos[own]))
        overall = mean_score("mean over questions", right, chance=guess, groups=videos)
        balanced = statistic_score("mean over types", mean_of_types, len(right), chance=guess, groups=videos)
        return TaskScores(self.name, self.split, (*by_type, overall, balanced), notes)

    def predictions(self, answers: Sequence[Answer]) -> dict[str, list[dict[str, Any]]]:
        """The JSON of STAR's EvalAI challenge: for each type a list of {"question_id", "answer"}, the choice's id. A
        question without an answer gets its first choice."""
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in TYPES}
        for question, answer in zip(self.questions, answers, strict=True):
            best = 0 if answer.logits is None else int(answer.logits.argmax())
            found[question.type].append({"question_id": question.key, "answer": question.choice_ids[best]})
        return found
