"""Finds videos and their companion files: transcripts and metadata, under the names that yt-dlp and people use."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reserve.data.sources.companions import Candidate, Companions
from reserve.data.types import PassedOver
from reserve.errors import BadInput

_VIDEO = "3g2 3gp asf avi divx f4v flv m2ts m2v m4v mkv mov mp4 mpe mpeg mpg mts mxf nut ogv ts vob webm wmv y4m"
_AUDIO = "aac ac3 aif aiff amr flac m4a m4b mka mp2 mp3 oga ogg opus wav weba wma"
MEDIA_SUFFIXES = frozenset(f".{suffix}" for suffix in f"{_VIDEO} {_AUDIO}".split())
"""Endings that count as media when a folder is searched. Sound files count too, so that they are reported as having no
video rather than ignored; .ogg can be either."""


@dataclass(frozen=True, slots=True)
class VideoSource:
    """A media file with its companions. `video_id` is unique in the data set: the path below the folder searched.
    `candidates` are its transcripts, best first; `info` the metadata file, if any; `passed_over` what looks like a
    transcript of it but is not read."""

    path: Path
    video_id: str
    candidates: tuple[Candidate, ...] = ()
    info: Path | None = None
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def transcripts(self) -> tuple[Path, ...]:
        """The files of the candidates."""
        return tuple(candidate.path for candidate in self.candidates)


def discover_sources(paths: Iterable[str | Path], *, languages: Sequence[str] = ("en",)) -> list[VideoSource]:
    """Every media file of `paths` (files, and folders searched recursively), sorted by `video_id`.

    A companion's name is the media file's, with or without its ending, then optionally languages and labels (labels.py)
    such as `words` or `forced`: `talk.vtt`, `talk.en.vtt`, `talk.mp4.words.json`, `talk.info.json`. The order of the
    transcripts: all that is spoken before forced text, `languages` in their order (a file that names none counts as the
    first) before others, written by people before recognised by machines, word times before line times, then by format.

    A file named in `paths` counts whatever its ending. Links to folders are followed. A folder that cannot be read is
    returned as a source, so that it is reported as skipped. Raises BadInput if a path does not exist or no media file
    is found.
    """
    found: dict[str, tuple[Path, str]] = {}
    searched: set[tuple[int, int]] = set()
    for path in map(Path, paths):
        if path.is_dir():
            media = [(file, file.relative_to(path).as_posix()) for file in _media_below(path, searched)]
        elif path.exists():
            media = [(path, path.name)]
        else:
            raise BadInput(f"{path}: no such file or folder")
        for file, name in media:
            found.setdefault(os.path.abspath(file), (file, name))
    if not found:
        raise BadInput(f"no media files in {', '.join(map(str, paths))}")
    counts = Counter(name for _, name in found.values())
    by_folder: dict[Path, list[Path]] = {}
    for path, _ in found.values():
        by_folder.setdefault(path.parent, []).append(path)
    companions = {folder: Companions(folder, media) for folder, media in by_folder.items()}
    sources = []
    for absolute, (path, name) in found.items():
        beside = companions[path.parent]
        candidates, passed_over = beside.transcripts(path, languages)
        video_id = name if counts[name] == 1 else absolute
        sources.append(VideoSource(path, video_id, candidates, beside.info(path), passed_over))
    return sorted(sources, key=lambda source: source.video_id)


def _media_below(folder: Path, searched: set[tuple[int, int]]) -> list[Path]:
    """Media files and unreadable folders below `folder`. Skips folders in `searched` and adds those it visits, so
    a link back up or a folder named twice adds nothing. Ignores a folder that is removed meanwhile, such as the scratch
    folder of a preparation into `folder`."""
    unreadable: list[Path] = []
    media: list[Path] = []

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            unreadable.append(Path(error.filename))

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=failed):
        try:
            status = os.stat(parent)
        except FileNotFoundError:
            continue
        if (status.st_dev, status.st_ino) in searched:
            folders.clear()
            continue
        searched.add((status.st_dev, status.st_ino))
        folders.sort()  # Always visit a folder with two paths by the same one.
        media += [
            Path(parent) / name
            for name in names
            if Path(name).suffix.lower() in MEDIA_SUFFIXES and not name.startswith(".")
        ]
    return media + unreadable
