"""What the server asks of a model, as a protocol: the page and its tests need no weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with how many parts of a work are done and how many there are. It may raise to end the work."""


@dataclass(frozen=True, slots=True)
class AnswerFound:
    """An answer, its probability among those offered, and where it fits best, in seconds. `read` is what the model
    reads of it, None if that is all."""

    text: str
    probability: float
    start: float
    end: float
    read: str | None = None


@dataclass(frozen=True, slots=True)
class AnswersFound:
    """The `statement` that the model read, with its MASK, and the answers, best first. `heard` says whether the video
    had sound that could be decoded."""

    statement: str
    answers: tuple[AnswerFound, ...]
    heard: bool


@dataclass(frozen=True, slots=True)
class MomentFound:
    """A moment of the video with the id `video`, in seconds, and its similarity with what was looked for."""

    video: str
    start: float
    end: float
    score: float


class Answering(Protocol):
    """A model and its indexes. One thread at a time calls the methods.

    All raise BadInput or ValueError with a message for the visitor where the video or what was asked is at fault.
    `indexes` are folders of indexes by the id of their video, each made by `index`. A search that finds one damaged
    removes it and raises BadInput.
    """

    @property
    def identity(self) -> str:
        """Tells this model's indexes from those of another one; a name for a folder."""
        ...

    def ask(
        self, video: Path, question: str, answers: Sequence[str], *, start: float, stop: float | None
    ) -> AnswersFound: ...

    def index(self, video: Path, folder: Path, progress: Progress) -> None:
        """Makes the index of one video. What an interrupted call has done is not done again."""
        ...

    def is_indexed(self, folder: Path) -> bool:
        """Whether `search_text` can use an index. Several threads may call it at a time."""
        ...

    def search_text(self, indexes: Mapping[str, Path], text: str, most: int) -> Sequence[MomentFound]: ...

    def search_sound(
        self, indexes: Mapping[str, Path], video: Path, start: float, stop: float, most: int
    ) -> Sequence[MomentFound]: ...
