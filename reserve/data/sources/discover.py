"""Finds videos and their companion files: transcripts and metadata, under the names that yt-dlp and people use."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reserve.data.sources.transcripts import TRANSCRIPT_SUFFIXES, is_word_timed
from reserve.errors import BadInput

_VIDEO = "3g2 3gp asf avi divx f4v flv m2ts m2v m4v mkv mov mp4 mpe mpeg mpg mts mxf nut ogv ts vob webm wmv y4m"
_AUDIO = "aac ac3 aif aiff amr flac m4a m4b mka mp2 mp3 oga ogg opus wav weba wma"
MEDIA_SUFFIXES = frozenset(f".{suffix}" for suffix in f"{_VIDEO} {_AUDIO}".split())
"""Endings that count as media when a folder is searched. Sound files count too, so that they are reported as having no
video rather than ignored; .ogg can be either."""

_INFO = ".info.json"
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z0-9]{1,12})*")
_LABELS = frozenset({"words", "transcript", "captions", "subtitles", "whisper", "vosk", "forced", "sdh", "cc"})


@dataclass(frozen=True, slots=True)
class VideoSource:
    """A media file with its companions. `video_id` is unique in the data set: the path below the folder searched.
    `transcripts` are candidates, best first; `info` the metadata file, if any."""

    path: Path
    video_id: str
    transcripts: tuple[Path, ...] = ()
    info: Path | None = None


def discover_sources(paths: Iterable[str | Path], *, languages: Sequence[str] = ("en",)) -> list[VideoSource]:
    """Every media file of `paths` (files, and folders searched recursively), sorted by `video_id`.

    A companion's name is the media file's, with or without its ending, then optionally a language code or a label
    such as `words`: `talk.vtt`, `talk.en.vtt`, `talk.mp3.words.json`, `talk.info.json`. Transcripts in one of
    `languages` or without a code come first, then those with word times, then by format. A file named in `paths` counts
    whatever its ending. Links to folders are followed. A folder that cannot be read is returned as a source, so that it
    is reported as skipped. Raises BadInput if a path does not exist or no media file is found.
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
    companions = {folder: _Companions(folder, media) for folder, media in by_folder.items()}
    sources = [
        VideoSource(
            path=path,
            video_id=name if counts[name] == 1 else absolute,
            transcripts=companions[path.parent].transcripts(path, languages),
            info=companions[path.parent].info(path),
        )
        for absolute, (path, name) in found.items()
    ]
    return sorted(sources, key=lambda source: source.video_id)


def _media_below(folder: Path, searched: set[tuple[int, int]]) -> list[Path]:
    """Media files and unreadable folders below `folder`. Skips folders in `searched` and adds those it visits, so
    a link back up or a folder named twice adds nothing."""
    unreadable: list[Path] = []
    media: list[Path] = []
    walk = os.walk(folder, followlinks=True, onerror=lambda error: unreadable.append(Path(error.filename)))
    for parent, folders, names in walk:
        status = os.stat(parent)
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


class _Companions:
    """The transcripts and metadata of one folder. Each belongs to the media file whose name it extends furthest."""

    def __init__(self, folder: Path, media: Iterable[Path]) -> None:
        prefixes = {prefix for path in media for prefix in (path.name, path.stem)}
        self._by_prefix: dict[str, list[tuple[str, Path]]] = {}
        for path in sorted(folder.iterdir()):
            ending = _INFO if path.name.endswith(_INFO) else path.suffix
            if ending != _INFO and ending.lower() not in TRANSCRIPT_SUFFIXES:
                continue
            stem = path.name.removesuffix(ending)
            parts = stem.split(".")
            for size in range(len(parts), 0, -1):
                prefix = ".".join(parts[:size])
                if prefix in prefixes:
                    self._by_prefix.setdefault(prefix, []).append((".".join(parts[size:]), path))
                    break

    def _of(self, media: Path) -> list[tuple[str, Path]]:
        return self._by_prefix.get(media.name, []) + self._by_prefix.get(media.stem, [])

    def info(self, media: Path) -> Path | None:
        return next((path for middle, path in self._of(media) if path.name.endswith(_INFO) and not middle), None)

    def transcripts(self, media: Path, languages: Sequence[str]) -> tuple[Path, ...]:
        ranked = []
        for middle, path in self._of(media):
            labels = [part for part in middle.split(".") if part]
            codes = [label for label in labels if label not in _LABELS]
            if path.name.endswith(_INFO) or not all(map(_LANGUAGE.fullmatch, codes)):
                continue
            preferred = not codes or any(re.split("[-_]", code)[0] in languages for code in codes)
            order = TRANSCRIPT_SUFFIXES.index(path.suffix.lower())
            ranked.append(((not preferred, not is_word_timed(path), order, path.name), path))
        return tuple(path for _, path in sorted(ranked))
