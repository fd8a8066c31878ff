"""Where TVQA keeps the pictures, sound and subtitles of its clips, and which of them a folder has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from reserve.data.types import Cue
from reserve.errors import BadInput
from reserve.tasks.tvqa.annotations import SOURCE, Question
from reserve.tasks.tvqa.subtitles import FOLDER, JSON_LINES, SubtitleLines, read_srt

FRAMES = "tvqa_frames/frames_hq"
AUDIO = "audios"
_PICTURE = re.compile(r"(\d+)\.jpg")


class ClipFiles:
    """The media of TVQA's clips below the data set's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lines = folder / JSON_LINES
        self._subtitle_lines = SubtitleLines(lines) if lines.is_file() else None

    def frames_folder(self, question: Question) -> Path:
        """The folder of a clip's pictures, `00001.jpg` and on, three a second."""
        return self.folder / FRAMES / f"{question.show}_frames" / question.vid_name

    def audio(self, question: Question) -> Path:
        """The sound of a clip."""
        series = "bbt_new" if question.show == "bbt" else question.show
        return self.folder / AUDIO / series / f"{question.show}_audios" / f"{question.vid_name}.mp3"

    def subtitles(self, question: Question) -> Path:
        """The subtitles of a clip; they may also be in the JSON-lines file."""
        return self.folder / FOLDER / f"{question.vid_name}.srt"

    def sources(self, question: Question) -> list[Path]:
        """The files and the folder that a clip is read from; those of the subtitles may be absent."""
        places = [self.frames_folder(question), self.audio(question), self.subtitles(question)]
        return [*places, self.folder / JSON_LINES]

    def frame_paths(self, question: Question) -> dict[int, Path]:
        """A clip's pictures by number. Raises BadInput naming the folder if there is none."""
        folder = self.frames_folder(question)
        try:
            names = os.listdir(folder)
        except OSError as error:
            raise BadInput(f"{folder}: cannot be opened: {error.strerror}") from error
        paths = {int(match[1]): folder / name for name in names if (match := _PICTURE.fullmatch(name))}
        paths.pop(0, None)
        if not paths:
            raise BadInput(f"{folder} holds no picture such as 00001.jpg")
        return paths

    def cues(self, question: Question) -> list[Cue]:
        """The subtitles of a clip. Raises BadInput naming the file and what is wrong."""
        path = self.subtitles(question)
        if self._subtitle_lines is not None and not path.is_file() and question.vid_name in self._subtitle_lines:
            return self._subtitle_lines.read(question.vid_name)
        return read_srt(path)

    def missing(self, questions: Iterable[Question]) -> Missing:
        """Which clips of the questions lack something, by listing folders: seconds for the whole data set."""
        names = _Listings()
        clips = {question.vid_name: question for question in questions}
        lacks: dict[str, list[Path]] = {"pictures": [], "sound": [], "subtitles": []}
        without: set[str] = set()
        kinds: list[tuple[str, Callable[[Question], Path]]] = [
            ("pictures", self.frames_folder),
            ("sound", self.audio),
            ("subtitles", self.subtitles),
        ]
        for vid_name, question in clips.items():
            for kind, place in kinds:
                path = place(question)
                listed = self._subtitle_lines is not None and vid_name in self._subtitle_lines
                if path in names or (kind == "subtitles" and listed):
                    continue
                lacks[kind].append(path)
                without.add(vid_name)
        return Missing(len(clips), lacks, frozenset(without))


class _Listings:
    """Which paths exist, judged by one listing of each folder."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def __contains__(self, path: Path) -> bool:
        folder = path.parent
        if folder not in self._names:
            self._names[folder] = frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
        return path.name in self._names[folder]


@dataclass(frozen=True)
class Missing:
    """What clips lack: of `clips` clips, the absent `paths` by kind, and the names of the `clips_without` something."""

    clips: int
    paths: dict[str, list[Path]]
    clips_without: frozenset[str]

    def counts(self) -> list[str]:
        """How many clips have each kind, a line each."""
        return [f"clips with {kind}: {self.clips - len(paths)} of {self.clips}" for kind, paths in self.paths.items()]

    def reasons(self, shown: int = 3) -> list[str]:
        """Why clips cannot be used, a line for each kind that is missing, the first few by name."""
        lines = []
        for kind, paths in self.paths.items():
            if paths:
                names = ", ".join(map(str, paths[:shown])) + (", …" if len(paths) > shown else "")
                lines.append(f"{len(paths)} of {self.clips} clips have no {kind} ({names}); get them from {SOURCE}")
        return lines
