"""A pretrained model behind the server: `reserve.ask` and an index of moments for each video."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from reserve.config import TrainConfig
from reserve.data.tokenizer import Tokenizer
from reserve.errors import BadInput
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.precision import autocast
from reserve.serve.answering import AnswerFound, AnswersFound, MomentFound, Progress
from reserve.tasks.ask import ask
from reserve.tasks.search import Moment, MomentIndex, build_index
from reserve.tasks.search.index import model_identity, part_files
from reserve.tasks.search.parts import PartHeader, read_header, read_part

_IDENTITY_CHARACTERS = 16

logger = logging.getLogger(__name__)


class ModelAnswering:
    """Implements `Answering`. `model` is on its device and in evaluation mode; `config` says the precision."""

    def __init__(self, model: MerlotReserve, tokenizer: Tokenizer, config: TrainConfig) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self._last: tuple[frozenset[Path], MomentIndex] | None = None
        self._whole: set[tuple[Path, int, int]] = set()

    @cached_property
    def identity(self) -> str:
        return model_identity(self.model)[:_IDENTITY_CHARACTERS]

    def ask(
        self, video: Path, question: str, answers: Sequence[str], *, start: float, stop: float | None
    ) -> AnswersFound:
        with autocast(self.config, self.model.device):
            found = ask(video, question, answers, model=self.model, tokenizer=self.tokenizer, start=start, stop=stop)
        return AnswersFound(
            found.statement,
            tuple(
                AnswerFound(
                    *(answer.text, answer.probability, answer.best.start, answer.best.end), self._cut(answer.text)
                )
                for answer in found.ranked
            ),
            found.heard,
        )

    def index(self, video: Path, folder: Path, progress: Progress) -> None:
        build_index([video], folder, self.model, config=self.config, windows=progress)

    def _cut(self, answer: str) -> str | None:
        """What the model reads of an answer that is too long for it."""
        ids, length = self.tokenizer.encode(answer), self.model.config.text_span_length
        return self.tokenizer.decode(ids[:length]).strip() if len(ids) > length else None

    def is_indexed(self, folder: Path) -> bool:
        parts = part_files(folder)
        return bool(parts) and all(map(self._is_whole, parts))

    def _is_whole(self, part: Path) -> bool:
        """Whether a part has a header that can be read, which is found out once as long as the file does not change."""
        try:
            status = part.stat()
            state = (part, status.st_size, status.st_mtime_ns)
            if state not in self._whole:
                read_header(part)
                self._whole.add(state)
        except (OSError, BadInput):
            return False
        return True

    def search_text(self, indexes: Mapping[str, Path], text: str, most: int) -> Sequence[MomentFound]:
        with self._removing_damaged(indexes), autocast(self.config, self.model.device):
            index, ids = self._joined(indexes)
            found = index.search_text(text, most, model=self.model, tokenizer=self.tokenizer)
        return _found(found, ids)

    def search_sound(
        self, indexes: Mapping[str, Path], video: Path, start: float, stop: float, most: int
    ) -> Sequence[MomentFound]:
        with self._removing_damaged(indexes), autocast(self.config, self.model.device):
            index, ids = self._joined(indexes)
            if not index.num_sounds:
                raise BadInput("the videos that were searched have no sound")
            found = index.search_sound(video, start, stop, most, model=self.model)
        return _found(found, ids)

    @contextmanager
    def _removing_damaged(self, indexes: Mapping[str, Path]) -> Iterator[None]:
        """Removes parts that made a search fail, since their headers alone may be whole: they are then made again."""
        try:
            yield
        except BadInput as error:
            damaged = [path for folder in indexes.values() for path in part_files(folder) if not _can_be_read(path)]
            if not damaged:
                raise
            self._last = None
            for path in damaged:
                logger.warning("%s is damaged and removed", path)
                path.unlink(missing_ok=True)
            raise BadInput(
                f"{len(damaged)} of the indexes searched were damaged; search again, and their videos are read anew"
            ) from error

    def _joined(self, indexes: Mapping[str, Path]) -> tuple[MomentIndex, dict[str, str]]:
        """The indexes as one, so that a query is encoded once, and the videos' ids by the paths in the index. The last
        one is kept with its vectors, for people search the same videos several times."""
        headers: dict[Path, PartHeader] = {}
        ids: dict[str, str] = {}
        for video_id, folder in indexes.items():
            for path in part_files(folder):
                headers[path] = read_header(path)
                ids |= dict.fromkeys(headers[path].videos, video_id)
        parts = frozenset(headers)
        if self._last is None or self._last[0] != parts:
            self._last = None  # its vectors make room
            folder = next(iter(indexes.values()))
            hidden = self.model.config.hidden_size
            self._last = parts, MomentIndex(folder, model_identity(self.model), hidden, headers)
        return self._last[1], ids


def _can_be_read(part: Path) -> bool:
    try:
        read_part(part)
    except BadInput:
        return False
    return True


def _found(moments: Sequence[Moment], ids: Mapping[str, str]) -> list[MomentFound]:
    return [MomentFound(ids[moment.video], moment.start, moment.end, moment.score) for moment in moments]
