"""MSR-VTT QA, zero-shot: questions about short videos, answered by one of the most frequent answers (SPEC 10.13).

A video is cut into segments of 3 s. The model hears all but the last one, which has the statement. The statements of
the paper are not published: ours come from a file, or from the rules of `statements`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reserve.batch.video_tokens import MAX_SEGMENTS
from reserve.data.video import Video
from reserve.data.video_sound import TimeSpan
from reserve.errors import BadInput
from reserve.tasks.data_folder import DataFile, FolderCheck, read_json_records
from reserve.tasks.scores import Score, TaskScores, mean_score
from reserve.tasks.zero_shot.answers import answer_vocabulary
from reserve.tasks.zero_shot.reader import Query
from reserve.tasks.zero_shot.readout import ranked
from reserve.tasks.zero_shot.statements import filled_blank, question_statement, read_statements
from reserve.tasks.zero_shot.task import Answer, Question, Unanswerable, ZeroShotTask, closing_statement

SEGMENT_SECONDS = 3
TOP = (1, 5, 10)
TOO_LONG = f"its video has more than {MAX_SEGMENTS} segments of {SEGMENT_SECONDS} s"
_SOURCE = "MSRVTT-QA, github.com/xudejing/video-question-answering"


@dataclass(frozen=True)
class VideoQuestion(Question):
    """A question with its right `answer`, and the `statement` that the model completes, None for a bad one."""

    number: int
    answer: str
    statement: str | None


def video_segments(seconds: float) -> tuple[TimeSpan, ...]:
    """The middle of a video of `seconds` in segments of 3 s, as many as fit; none if it is shorter."""
    count = int(seconds // SEGMENT_SECONDS)
    start = round((seconds - count * SEGMENT_SECONDS) / 2, 2)
    found = []
    for _ in range(count):
        end = start + SEGMENT_SECONDS
        found.append(TimeSpan(start, end, round((start + end) / 2, 2)))
        start = end
    return tuple(found)


@dataclass(frozen=True)
class MsrvttQA(ZeroShotTask[VideoQuestion]):
    """Answer the questions of MSR-VTT QA about short videos.

    Of a video with more than eight segments, the last eight are read; `as_released` leaves such questions out of the
    averages, as the released script does. A video of less than 3 s is one segment; `as_released` counts it as wrong.
    """

    statements: Path | None = None
    """Statements by question id, JSON or JSON lines, with _ or <|MASK|> for the answer; by default statements.json or
    statements.jsonl of the data set's folder, or else our rules."""
    vocabulary_size: int = 1000
    """The options are the training answers that are at least as frequent as the one of this rank."""

    name: ClassVar[str] = "msrvtt-qa"
    released: ClassVar[bool] = True
    video_source: ClassVar[str] = "MSR-VTT (videos video0.mp4 to video9999.mp4)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary_size < 1:
            raise ValueError(f"vocabulary_size must be at least 1; got {self.vocabulary_size}")

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The most frequent answers of the training questions."""
        path = _questions_file("train").within(self.data)
        found = answer_vocabulary((row.text("answer") for row in read_json_records(path)), self.vocabulary_size)
        if not found:
            raise BadInput(f"{path} has no answers, which are the options")
        return tuple(found)

    @property
    def options(self) -> Sequence[str]:
        return self.vocabulary

    @cached_property
    def statements_file(self) -> Path | None:
        """The file of statements, None to use the rules."""
        if self.statements is not None:
            return self.statements
        paths = (self.data / name for name in ("statements.json", "statements.jsonl"))
        return next((path for path in paths if path.exists()), None)

    def read_questions(self) -> list[VideoQuestion]:
        rows = read_json_records(_questions_file(self.split).within(self.data))
        written = None if self.statements_file is None else read_statements(self.statements_file)
        found = []
        for row in rows:
            key, text = str(row.whole("id")), row.text("question")
            statement = question_statement(text) if written is None else filled_blank(written.get(key, ""))
            video = row.whole("video_id")
            found.append(VideoQuestion(key, f"video{video}", video, row.text("answer"), statement))
        return found

    def query(self, question: VideoQuestion, video: Video) -> Query:
        if question.statement is None:
            raise Unanswerable("it has no statement with exactly one blank")
        segments = video_segments(video.duration)
        if len(segments) > MAX_SEGMENTS and self.as_released:
            raise Unanswerable(TOO_LONG)
        if not segments:
            if self.as_released:
                raise Unanswerable(f"its video is shorter than a segment of {SEGMENT_SECONDS} s")
            segments = (TimeSpan(0.0, video.duration, round(video.duration / 2, 2)),)
        return closing_statement(segments[-MAX_SEGMENTS:], question.statement)

    def check_more(self, check: FolderCheck) -> None:
        source = "rules" if self.statements_file is None else str(self.statements_file)
        usable = sum(question.statement is not None for question in self.questions)
        check.lines.append(f"statements from {source}: {usable} of {len(self.questions)} usable")

    def scores(self, answers: Sequence[Answer]) -> TaskScores:
        kept = [i for i, answer in enumerate(answers) if answer.failure != TOO_LONG]
        notes = [f"options: the {len(self.vocabulary)} most frequent answers of train_qa.json"]
        if len(kept) < len(answers):
            notes.append(f"{len(answers) - len(kept)} questions are left out, as released: {TOO_LONG}")
        notes += self.failure_notes([answers[i] for i in kept])
        notes.append(f"statements: {'our rules' if self.statements_file is None else self.statements_file.name}")
        groups = np.array([self.questions[i].number for i in kept], np.int64)
        found = [self._accuracy(k, [(self.questions[i], answers[i]) for i in kept], groups) for k in TOP]
        return TaskScores(self.name, self.split, tuple(found), tuple(notes))

    def _accuracy(self, k: int, answered: Sequence[tuple[VideoQuestion, Answer]], groups: np.ndarray) -> Score:
        right = [question.answer in self._best(answer, k) for question, answer in answered]
        return mean_score(f"top-{k}", np.array(right), groups=groups, chance=min(k / len(self.vocabulary), 1.0))

    def _best(self, answer: Answer, count: int) -> list[str]:
        return [] if answer.logits is None else [self.vocabulary[i] for i in ranked(answer.logits, count)]

    def predictions(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        """A list of {"id", "video_id", "answer", "best", "failure"}: the best answer and the best ten; null and the
        reason where there is none. The data set has no leaderboard."""
        found = []
        for question, answer in zip(self.questions, answers, strict=True):
            best = self._best(answer, max(TOP))
            found.append(
                {
                    "id": int(question.key),
                    "video_id": question.number,
                    "answer": best[0] if best else None,
                    "best": best,
                    "failure": answer.failure or None,
                }
            )
        return found


def _questions_file(split: str) -> DataFile:
    return DataFile(f"{split}_qa.json", f"the {split} questions", _SOURCE)
