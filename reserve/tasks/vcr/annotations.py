"""VCR's own files: questions with answers and rationales, and the objects of each picture (SPEC 10.7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reserve.errors import BadInput
from reserve.tasks.data_folder import DataFile, JsonLines, Record, read_json_record

CHOICES = 4
SOURCE = "visualcommonsense.com/download"
IMAGES = "vcr1images"
# Pillow takes seconds to draw much larger boxes, most of them outside of the picture.
_MAX_COORDINATE = 100_000

Tokens = tuple[str | tuple[int, ...], ...]
"""A text as annotated: words, and references to objects by index."""


def questions_file(split: str) -> DataFile:
    return DataFile(f"{split}.jsonl", f"VCR's {split} questions", SOURCE)


@dataclass(frozen=True, slots=True)
class Question:
    """One question. Labels are None in the test split. `image` and `metadata` are paths within the images' folder."""

    annot_id: str
    image: str
    metadata: str
    question: Tokens
    answers: tuple[Tokens, ...]
    rationales: tuple[Tokens, ...]
    answer_label: int | None
    rationale_label: int | None
    where: str

    @property
    def texts(self) -> tuple[Tokens, ...]:
        """The question, its answers and its rationales."""
        return self.question, *self.answers, *self.rationales


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of a picture: the class of each, its box (x1, y1, x2, y2) in pixels of a picture `width` wide."""

    names: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    width: float


class Questions:
    """The questions of a split in the order of the file, read one by one when they are asked for. Picklable.

    Those of train and val must have both labels; in test all must have them, or they are ignored, as the first question
    has them or not. Raises BadInput naming the file if it is missing or holds no question, and naming the line and the
    field where a question is wrong.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._records = JsonLines(questions_file(split).within(folder))
        if not len(self._records):
            raise BadInput(f"{self._records.path} holds no question")
        self.labelled = split != "test" or read_question(self._records[0]).answer_label is not None

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Question:
        return self._checked(read_question(self._records[index]))

    def __iter__(self) -> Iterator[Question]:
        seen = set()
        for record in self._records:
            question = self._checked(read_question(record))
            if question.annot_id in seen:
                raise BadInput(f"{question.where}: an earlier question also has the annot_id {question.annot_id!r:.80}")
            seen.add(question.annot_id)
            yield question

    def _checked(self, question: Question) -> Question:
        if not self.labelled:
            return replace(question, answer_label=None, rationale_label=None)
        for name in ("answer_label", "rationale_label"):
            if getattr(question, name) is None:
                raise BadInput(f"{question.where} has no {name!r}")
        return question


def read_question(record: Record) -> Question:
    """Raises BadInput naming the place and the field that is missing or wrong."""
    return Question(
        annot_id=record.text("annot_id"),
        image=_path_within(record, "img_fn"),
        metadata=_path_within(record, "metadata_fn"),
        question=_tokens(record.list("question"), f"{record.where}: 'question'"),
        answers=_choices(record, "answer_choices"),
        rationales=_choices(record, "rationale_choices"),
        answer_label=_label(record, "answer_label"),
        rationale_label=_label(record, "rationale_label"),
        where=record.where,
    )


def read_objects(path: Path) -> Objects:
    """A picture's metadata file. Raises BadInput naming the file and the field that is missing or wrong."""
    record = read_json_record(path)
    names, boxes = record.list("names"), record.list("boxes")
    if not all(isinstance(name, str) for name in names):
        raise BadInput(f"{path}: 'names' must be a list of text")
    if len(boxes) != len(names) or not all(map(_is_box, boxes)):
        raise BadInput(
            f"{path}: 'boxes' must have x1, y1, x2, y2, at most {_MAX_COORDINATE} pixels, for each of the {len(names)} "
            "names"
        )
    width = record.number("width")
    if width <= 0:
        raise BadInput(f"{path}: 'width' must be above 0; got {width:g}")
    return Objects(tuple(names), tuple((b[0], b[1], b[2], b[3]) for b in boxes), width)


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) >= 4 and all(map(_is_coordinate, box[:4]))


def _is_coordinate(side: Any) -> bool:
    return type(side) in (int, float) and -_MAX_COORDINATE <= side <= _MAX_COORDINATE


def check_references(question: Question, objects: Objects) -> None:
    """Raises BadInput if a text of the question refers to an object that the picture does not have."""
    count = len(objects.names)
    for text in question.texts:
        for token in text:
            if not isinstance(token, str) and any(not 0 <= index < count for index in token):
                raise BadInput(f"{question.where} refers to objects {list(token)}; {question.metadata} has {count}")


def _choices(record: Record, name: str) -> tuple[Tokens, ...]:
    choices = record.list(name)
    if len(choices) != CHOICES:
        raise BadInput(f"{record.where}: {name!r} must have {CHOICES} choices; got {len(choices)}")
    return tuple(_tokens(choice, f"{record.where}: {name!r}") for choice in choices)


def _tokens(values: Any, where: str) -> Tokens:
    if not isinstance(values, list):
        raise BadInput(f"{where} must be a list of tokens; got {values!r:.80}")
    tokens: list[str | tuple[int, ...]] = []
    for value in values:
        if isinstance(value, list) and value and all(type(index) is int for index in value):
            tokens.append(tuple(value))
        elif isinstance(value, str):
            tokens.append(value)
        else:
            raise BadInput(f"{where}: a token must be text or a list of object indices; got {value!r:.80}")
    return tuple(tokens)


def _label(record: Record, name: str) -> int | None:
    if not record.has(name):
        return None
    label = record.whole(name)
    if not 0 <= label < CHOICES:
        raise BadInput(f"{record.where}: {name!r} must be in [0, {CHOICES}); got {label}")
    return label


def _path_within(record: Record, name: str) -> str:
    """A relative path that stays in its folder: annotations are not trusted to name other files."""
    path = Path(record.text(name))
    if path.is_absolute() or ".." in path.parts:
        raise BadInput(f"{record.where}: {name!r} must be a path within {IMAGES}; got {str(path)!r:.80}")
    return str(path)
