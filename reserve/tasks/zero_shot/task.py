"""What the zero-shot tasks share: questions about videos, their options, and the loop that answers them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch

from reserve.batch.video_tokens import MAX_SEGMENTS
from reserve.config import TrainConfig
from reserve.data.tokenizer import Tokenizer
from reserve.data.video import Video, open_video
from reserve.data.video_sound import TimeSpan
from reserve.errors import BadInput
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.precision import autocast
from reserve.tasks.data_folder import FolderCheck
from reserve.tasks.scores import TaskScores
from reserve.tasks.zero_shot.reader import Query, VideoReader
from reserve.tasks.zero_shot.readout import encode_options, option_ids, option_logits

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))


@dataclass(frozen=True)
class Question:
    """A question of a data set: its `key` in the predictions, and the name of its `video`, without ending."""

    key: str
    video: str


@dataclass(frozen=True)
class Answer:
    """The logits float32 [options] of a question's options, or None with the reason why there are none."""

    logits: np.ndarray | None
    failure: str = ""


class Unanswerable(Exception):
    """A question that cannot be put to the model; the message says why. It counts as wrong."""


AnyQuestion = TypeVar("AnyQuestion", bound=Question)


@dataclass(frozen=True)
class ZeroShotTask(ABC, Generic[AnyQuestion]):
    """A data set of questions about videos."""

    data: Path
    """The data set's folder."""
    split: str = "val"
    """Which of its splits."""
    videos: Path | None = None
    """The folder of the videos, searched recursively; by default the data set's folder `videos`, or all of it."""
    as_released: bool = False
    """Reproduce the oddities of the released code; only for tasks that have any."""
    limit: int | None = None
    """Only the first questions."""

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    video_source: ClassVar[str]
    """Where the videos come from."""

    released: ClassVar[bool] = False
    """Whether the release has code for this data set."""

    def __post_init__(self) -> None:
        if self.as_released and not self.released:
            raise ValueError(f"as_released must be false for {self.name}, whose code was never released; got true")
        if self.split not in self.splits:
            raise ValueError(f"split must be one of {', '.join(self.splits)}; got {self.split!r}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1; got {self.limit}")

    @cached_property
    def questions(self) -> Sequence[AnyQuestion]:
        """The questions, at most `limit`, at least one. Raises BadInput naming the file at fault."""
        found = self.read_questions()[: self.limit]
        if not found:
            raise BadInput(f"{self.data}: the split {self.split!r} of {self.name} has no questions")
        return found

    @abstractmethod
    def read_questions(self) -> Sequence[AnyQuestion]:
        """All questions of the split."""

    @property
    @abstractmethod
    def options(self) -> Sequence[str]:
        """The texts of all options of the data set, at least one. Raises BadInput naming the file at fault."""

    def choices(self, question: AnyQuestion) -> Sequence[int] | None:
        """The options of one question as indices of `options`; None for all."""
        return None

    @abstractmethod
    def query(self, question: AnyQuestion, video: Video) -> Query:
        """The question as the model reads it. Raises Unanswerable."""

    @abstractmethod
    def scores(self, answers: Sequence[Answer]) -> TaskScores:
        """The task's metrics over `questions`; without an answer, a question counts as wrong."""

    @abstractmethod
    def predictions(self, answers: Sequence[Answer]) -> Any:
        """The predictions as JSON values, in the format of the task's scorer or leaderboard."""

    @cached_property
    def video_files(self) -> dict[str, Path]:
        """The video files by name without ending."""
        folder = self.videos or (self.data / "videos" if (self.data / "videos").is_dir() else self.data)
        if not folder.is_dir():
            raise BadInput(f"{folder} is not a folder: it must hold the videos, from {self.video_source}")
        found: dict[str, Path] = {}
        for parent, _, names in os.walk(folder, followlinks=True):
            for path in (Path(parent, name) for name in names):
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    found[path.stem] = min(path, found.get(path.stem, path))
        return found

    def check_folder(self) -> FolderCheck:
        """Validates the annotations and that the videos exist, without decoding any."""
        check = FolderCheck()
        try:
            check.lines.append(f"{self.name}, {self.split}: {len(self.questions)} questions")
            check.lines.append(f"{len(set(self.options))} options")
            names = sorted({question.video for question in self.questions})
            files = self.video_files
        except BadInput as error:
            check.problems.append(str(error))
            return check
        folder = self.videos or self.data
        check.files("videos", [files.get(name, folder / name) for name in names], self.video_source)
        self.check_more(check)
        return check

    def check_more(self, check: FolderCheck) -> None:
        """Adds to `check` what is particular to the task."""

    def failure_notes(self, answers: Sequence[Answer]) -> tuple[str, ...]:
        """Says how many questions could not be answered, and the most frequent reasons."""
        reasons = Counter(answer.failure for answer in answers if answer.logits is None)
        if not reasons:
            return ()
        shown = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
        more = "; …" if len(reasons) > 3 else ""
        return (f"{reasons.total()} of {len(answers)} questions have no answer and count as wrong: {shown}{more}",)


def equal_segments(start: float, end: float, seconds: float, most: int = MAX_SEGMENTS) -> tuple[TimeSpan, ...]:
    """A stretch of a video in equal segments of at least `seconds`, at most `most`; one if it is shorter."""
    count = min(max(int((end - start) / seconds + 1e-9), 1), most)
    bounds = [round(start + (end - start) * number / count, 3) for number in range(count + 1)]
    return tuple(TimeSpan(low, high, round((low + high) / 2, 3)) for low, high in pairwise(bounds))


def check_segment_seconds(seconds: float) -> None:
    """Raises ValueError unless `seconds` can be the length of a segment."""
    if not 0.1 <= seconds < float("inf"):
        raise ValueError(f"segment_seconds must be at least 0.1 and finite; got {seconds}")


def closing_statement(segments: tuple[TimeSpan, ...], statement: str) -> Query:
    """A query that hears all segments but the last, which has the statement."""
    return Query(segments, (*[None] * (len(segments) - 1), statement))


def answer_questions(
    task: ZeroShotTask[Any],
    model: MerlotReserve,
    tokenizer: Tokenizer,
    *,
    config: TrainConfig | None = None,
    workers: int = 1,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, Answer]:
    """Answers the questions of every `world_size`-th video from the `rank`-th on, by their number.

    `model` is in evaluation mode; `config` decides the precision, by default float32. `workers` threads decode a video
    each. `progress` is called with the videos done and in all. A video that cannot be read leaves its questions without
    answers. Raises ValueError if the vocabulary does not fit the model or `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"the vocabulary has {tokenizer.vocab_size} tokens, more than the model's {model.config.vocab_size}"
        )
    by_video: dict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(task.questions):
        by_video[question.video].append(number)
    reader = VideoReader(model, tokenizer)
    precision = config or TrainConfig(precision="float32")
    with autocast(precision, model.device):
        vectors = encode_options(model, option_ids(tokenizer, task.options, model.config.text_span_length))

    def answer(name: str) -> dict[int, Answer]:
        with autocast(precision, model.device):  # which each thread has its own of
            return _answer_video(task, name, by_video[name], reader, vectors)

    found: dict[int, Answer] = {}
    own = sorted(by_video)[rank::world_size]
    with ThreadPoolExecutor(workers, initializer=_use_device, initargs=(model.device,)) as pool:
        try:
            for done, answers in enumerate(pool.map(answer, own), 1):
                found |= answers
                if progress is not None:
                    progress(done, len(own))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _use_device(device: torch.device) -> None:
    """Makes `device` the current one of this thread, which a new thread does not inherit."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _answer_video(
    task: ZeroShotTask[Any], name: str, numbers: Sequence[int], reader: VideoReader, options: torch.Tensor
) -> dict[int, Answer]:
    path = task.video_files.get(name)
    if path is None:
        return dict.fromkeys(numbers, Answer(None, f"there is no video {name}"))
    found: dict[int, Answer] = {}
    try:
        video = open_video(path)
        queries: dict[int, Query] = {}
        for number in numbers:
            try:
                queries[number] = task.query(task.questions[number], video)
            except Unanswerable as error:
                found[number] = Answer(None, str(error))
        masks = reader.read(video, list(queries.values()))
    except BadInput as error:
        return found | {number: Answer(None, str(error)) for number in numbers if number not in found}
    for number, vectors in zip(queries, masks, strict=True):
        if not len(vectors):
            found[number] = Answer(None, "its MASK is beyond the tokens of a sequence")
            continue
        choices = task.choices(task.questions[number])
        own = options if choices is None else options[list(choices)]
        logits = option_logits(vectors[:1], own)[0].cpu().numpy()
        finite = np.isfinite(logits).all()
        found[number] = Answer(logits) if finite else Answer(None, "the model's logits are not finite")
    return found
