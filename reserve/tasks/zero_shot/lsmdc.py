"""LSMDC fill-in-the-blank, zero-shot: the missing word of a description of a movie clip (SPEC 10.12).

The blank becomes the MASK, and the options are the most frequent words of the training split. How the paper read the
clips is not known. Ours are cut into equal segments of at least 2 s; all but the last are heard, and the last one has
the sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from reserve.data.video import Video
from reserve.errors import BadInput
from reserve.tasks.data_folder import DataFile, FolderCheck, Record, read_table
from reserve.tasks.scores import TaskScores, mean_score
from reserve.tasks.zero_shot.answers import answer_vocabulary
from reserve.tasks.zero_shot.reader import Query
from reserve.tasks.zero_shot.readout import ranked
from reserve.tasks.zero_shot.statements import MASK_TEXT, attach_mask
from reserve.tasks.zero_shot.task import (
    Answer,
    Question,
    Unanswerable,
    ZeroShotTask,
    check_segment_seconds,
    closing_statement,
    equal_segments,
)

BLANK = "_____"
COLUMNS = (
    *("video_id", "start_aligned", "end_aligned", "start_extracted", "end_extracted"),
    *("sentence", "question", "answer"),
)
_SOURCE = "LSMDC 2016, sites.google.com/site/describingmovies (access on request)"
_FILES = {
    split: DataFile(f"LSMDC16_annos_{name}_FIB.csv", f"the {split} sentences with blanks", _SOURCE)
    for split, name in (("train", "training"), ("val", "val"), ("test", "test"))
}
# How many words the predictions have of each question.
_BEST = 10


@dataclass(frozen=True)
class BlankQuestion(Question):
    """A sentence with a MASK for its blank, None if it has no blank or several, and the `answer` that fills it."""

    statement: str | None
    answer: str


@dataclass(frozen=True)
class Lsmdc(ZeroShotTask[BlankQuestion]):
    """Fill in the blanks in LSMDC's descriptions of movie clips."""

    vocabulary_size: int = 1000
    """How many of the most frequent training answers are the options; others count as wrong."""
    segment_seconds: float = 2.0
    """Least length of a segment."""

    name: ClassVar[str] = "lsmdc"
    video_source: ClassVar[str] = _SOURCE

    def __post_init__(self) -> None:
        super().__post_init__()
        check_segment_seconds(self.segment_seconds)
        if self.vocabulary_size < 1:
            raise ValueError(f"vocabulary_size must be at least 1; got {self.vocabulary_size}")

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The most frequent answers of the training split, in lower case; equally frequent ones as they appear."""
        answers = [row.text("answer").strip().lower() for row in self._rows("train")]
        if not answers:
            raise BadInput(f"{_FILES['train'].within(self.data)} has no answers, which are the options")
        return tuple(answer_vocabulary(answers, self.vocabulary_size)[: self.vocabulary_size])

    @property
    def options(self) -> Sequence[str]:
        return self.vocabulary

    def _rows(self, split: str) -> list[Record]:
        rows = read_table(_FILES[split].within(self.data), COLUMNS, delimiter="\t", header=COLUMNS)
        # The data set's files have no header, but copies of them do.
        return rows[1:] if rows and rows[0].values["video_id"] == COLUMNS[0] else rows

    def read_questions(self) -> list[BlankQuestion]:
        found = []
        for number, row in enumerate(self._rows(self.split)):
            sentence, video = row.text("question"), row.text("video_id")
            blanks = sentence.count(BLANK)
            statement = attach_mask(sentence.replace(BLANK, MASK_TEXT)) if blanks == 1 else None
            found.append(BlankQuestion(f"{video}#{number}", video, statement, row.text("answer").strip().lower()))
        return found

    def query(self, question: BlankQuestion, video: Video) -> Query:
        if question.statement is None:
            raise Unanswerable("its sentence does not have exactly one blank")
        return closing_statement(equal_segments(0.0, video.duration, self.segment_seconds), question.statement)

    def check_more(self, check: FolderCheck) -> None:
        blank = sum(question.statement is not None for question in self.questions)
        check.lines.append(f"sentences with one blank: {blank} of {len(self.questions)}")

    def scores(self, answers: Sequence[Answer]) -> TaskScores:
        right = [
            answer.logits is not None and self.vocabulary[int(answer.logits.argmax())] == question.answer
            for question, answer in zip(self.questions, answers, strict=True)
        ]
        clips = np.unique([question.video for question in self.questions], return_inverse=True)[1]
        known = set(self.vocabulary)
        outside = sum(question.answer not in known for question in self.questions)
        notes = (
            f"options: the {len(self.vocabulary)} most frequent answers of the training split",
            f"{outside} of {len(self.questions)} answers are not among them and count as wrong",
            *self.failure_notes(answers),
        )
        score = mean_score("accuracy", np.array(right), groups=clips, chance=1 / len(self.vocabulary))
        return TaskScores(self.name, self.split, (score,), notes)

    def predictions(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        """A list of {"line", "video_id", "answer", "best", "failure"}: the question's line in its file, the best word
        and the best ten; null and the reason where there is none. The data set has no public scorer."""
        found: list[dict[str, Any]] = []
        for line, (question, answer) in enumerate(zip(self.questions, answers, strict=True), 1):
            best = [] if answer.logits is None else [self.vocabulary[i] for i in ranked(answer.logits, _BEST)]
            found.append(
                {
                    "line": line,
                    "video_id": question.video,
                    "answer": best[0] if best else None,
                    "best": best,
                    "failure": answer.failure or None,
                }
            )
        return found
