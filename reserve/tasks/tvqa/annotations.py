"""TVQA's questions, as its JSON-lines files have them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reserve.errors import BadInput
from reserve.tasks.data_folder import DataFile, JsonLines, Record

SPLITS = {"train": "tvqa_train.jsonl", "val": "tvqa_val.jsonl", "test": "tvqa_test_public.jsonl"}
"""The annotation file of each split."""
QUESTIONS_FOLDER = "tvqa_qa_release"
SOURCE = "https://tvqa.cs.unc.edu/download_tvqa.html"
CHOICES = 5

SHOWS = {
    "Grey's Anatomy": "grey",
    "How I Met You Mother": "met",
    "Friends": "friends",
    "The Big Bang Theory": "bbt",
    "House M.D.": "house",
    "Castle": "castle",
}
"""Abbreviation of each series by the name that the annotations use, spelt as they spell it."""

WHOLE_CLIP = (0.0, 9999.0)
"""The span of a question whose `ts` is NaN."""

_LATEST = 1e6
# A clip's name is also that of its files; annotations are not trusted to name others.
_FILE_NAME = re.compile(r"(?!\.)[^/\\\0]+")
# Clips of The Big Bang Theory carry no abbreviation.
_EPISODE = re.compile(r"(?:(?P<show>[a-z]+)_)?s\d+e\d.*")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan"
_SPAN = re.compile(rf"\s*({_NUMBER})\s*-\s*({_NUMBER})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Question:
    """One question on clip `vid_name` of `show`, an abbreviation of SHOWS. `span` is the annotated moment in seconds,
    WHOLE_CLIP where it is NaN; `label` is None in the test split; `where` is the line of its file, for errors."""

    qid: int
    vid_name: str
    show: str
    span: tuple[float, float]
    question: str
    choices: tuple[str, ...]
    label: int | None
    where: str

    @property
    def id(self) -> str:
        """`<qid, six digits>~<clip>`."""
        return f"{self.qid:06d}~{self.vid_name}"


def questions_file(split: str) -> DataFile:
    """The annotation file of a split."""
    return DataFile(f"{QUESTIONS_FOLDER}/{SPLITS[split]}", f"TVQA's questions of the split {split}", SOURCE)


class Questions:
    """The questions of a split in the order of the file, read one by one when they are asked for. Picklable.

    Raises BadInput naming the file if it is missing, and naming the line and the field where a question is wrong.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.labelled = split != "test"
        self._records = JsonLines(questions_file(split).within(folder))
        if not len(self._records):
            raise BadInput(f"{self._records.path} holds no question")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Question:
        return read_question(self._records[index], labelled=self.labelled)

    def __iter__(self) -> Iterator[Question]:
        seen: dict[int, str] = {}
        for record in self._records:
            question = read_question(record, labelled=self.labelled)
            if question.qid in seen:
                raise BadInput(f"{question.where}: qid {question.qid} is also that of {seen[question.qid]}")
            seen[question.qid] = question.where
            yield question


def read_question(record: Record, *, labelled: bool) -> Question:
    """The question of one annotation; `labelled` requires `answer_idx`. `show_name` may be absent: the name of the clip
    then decides."""
    vid_name = record.text("vid_name")
    if not _FILE_NAME.fullmatch(vid_name):
        raise BadInput(f"{record.where}: 'vid_name' must be the name of a clip, not a path; got {vid_name!r:.80}")
    label = record.whole("answer_idx") if labelled else None
    if label is not None and not 0 <= label < CHOICES:
        raise BadInput(f"{record.where}: 'answer_idx' must be from 0 to {CHOICES - 1}; got {label}")
    qid = record.whole("qid")
    if qid < 0:
        raise BadInput(f"{record.where}: 'qid' must be at least 0; got {qid}")
    return Question(
        qid=qid,
        vid_name=vid_name,
        show=_show(record, vid_name),
        span=parse_span(record.text("ts"), record.where),
        question=record.text("q"),
        choices=tuple(record.text(f"a{choice}") for choice in range(CHOICES)),
        label=label,
        where=record.where,
    )


def _show(record: Record, vid_name: str) -> str:
    if record.has("show_name"):
        name = record.text("show_name")
        if name not in SHOWS:
            raise BadInput(f"{record.where}: 'show_name' must be one of {', '.join(SHOWS)}; got {name!r:.80}")
        return SHOWS[name]
    episode = _EPISODE.fullmatch(vid_name)
    show = (episode["show"] or "bbt") if episode else None
    if show is None or show not in SHOWS.values():
        raise BadInput(
            f"{record.where} has no 'show_name', and its clip {vid_name!r:.80} names no known series; it must look "
            f"like s03e21_seg02_clip_08 or, with one of {', '.join(SHOWS.values())}, castle_s02e24_seg02_clip_26"
        )
    return show


def parse_span(ts: str, where: str) -> tuple[float, float]:
    """Start and end of `ts`, such as "48.62-60.02", in seconds; WHOLE_CLIP if either is NaN, as in "nan-nan"."""
    match = _SPAN.fullmatch(ts)
    if match is None or any(abs(float(number)) > _LATEST for number in match.groups()):
        raise BadInput(f"{where}: 'ts' must be two numbers of seconds such as 48.62-60.02, or nan-nan; got {ts!r:.80}")
    start, end = float(match[1]), float(match[2])
    return WHOLE_CLIP if math.isnan(start) or math.isnan(end) else (start, end)
