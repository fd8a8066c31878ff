"""The subtitles of a clip, by segment (SPEC 10.8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reserve.data.sources.text_files import read_bounded_bytes
from reserve.data.sources.transcripts.timed_blocks import parse_blocks
from reserve.data.types import Cue
from reserve.errors import BadInput
from reserve.tasks.data_folder import JsonLines, Record
from reserve.tasks.tvqa.times import cue_segments

FOLDER = "tvqa_subtitles"
"""Folder of `<clip>.srt`."""
JSON_LINES = "tvqa_preprocessed_subtitles.jsonl"
"""All subtitles in one file, a line a clip: `vid_name` and `sub`, a list of `text`, `start` and `end`."""


def read_srt(path: Path) -> list[Cue]:
    """The cues of an SRT file with their text as it is. An empty file has none. Raises BadInput naming the file."""
    if path.is_file() and not path.stat().st_size:
        return []
    try:
        content = read_bounded_bytes(path)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            # The subtitles are English, and `clean_text` repairs what this gets wrong.
            text = content.decode("cp1252", "replace")
        return parse_blocks(text.replace("\r\n", "\n").replace("\r", "\n"), "SRT") if text.strip() else []
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


class SubtitleLines:
    """The subtitles of the JSON-lines file, each clip's read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        self._places = {record.text("vid_name"): place for place, record in enumerate(self._lines)}

    def __contains__(self, vid_name: str) -> bool:
        return vid_name in self._places

    def read(self, vid_name: str) -> list[Cue]:
        """The cues of a clip. Raises BadInput naming the line and the field that is wrong."""
        line = self._lines[self._places[vid_name]]
        entries = [Record(entry, f"{line.where}, subtitle {index}") for index, entry in enumerate(line.list("sub"), 1)]
        return [Cue(e.number("start"), e.number("end"), tuple(e.text("text").split("\n"))) for e in entries]


def segment_texts(cues: Sequence[Cue], times: np.ndarray) -> list[str]:
    """The cleaned text of each segment of `times` [n, 2], empty where nothing is said."""
    segments = cue_segments(times, [(cue.start, cue.end) for cue in cues])
    said: list[list[str]] = [[] for _ in times]
    for cue, segment in zip(cues, segments.tolist(), strict=True):
        if segment >= 0:
            said[segment].append("\n".join(cue.lines))
    return [clean_text(" ".join(texts)) for texts in said]


def clean_text(text: str) -> str:
    """`text` with its encoding repaired, in ASCII, on one line."""
    try:
        from ftfy import fix_text
        from unidecode import unidecode
    except ImportError as error:
        raise ImportError(
            f"TVQA's subtitles need {error.name}: pip install 'merlot-reserve[tasks]'", name=error.name
        ) from error
    return unidecode(fix_text(text)).replace("\n", " ")
