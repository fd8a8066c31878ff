"""The videos that visitors may watch, by ids that the server makes: no path comes from a request."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reserve.errors import BadInput
from reserve.fs import check_regular_file
from reserve.serve.playback import MEDIA_TYPES


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video under its `id`, with the `name` to show and its `size` in bytes. `path` has no links in it."""

    id: str
    name: str
    path: Path
    size: int
    uploaded: bool = False


class FolderVideos:
    """The videos below a folder of the machine, which is only read.

    The id is made of path, size and time of change: another file under the same name is another video, whose index is
    made anew. A file is listed once, by its own name if that is not hidden: links to it count if it lies in the folder
    too. Links to folders and hidden names do not.
    """

    def __init__(self, folder: Path) -> None:
        """Raises BadInput unless `folder` can be listed."""
        try:
            self.folder = folder.resolve(strict=True)
            os.listdir(self.folder)
        except OSError as error:
            raise BadInput(f"{folder}: {error.strerror}") from error
        self._known: dict[str, VideoFile] = {}

    def list(self) -> list[VideoFile]:
        """All videos by name, as they are now."""
        by_file: dict[Path, VideoFile] = {}
        for video in sorted(self._found(), key=lambda video: (self.folder / video.name != video.path, video.name)):
            by_file.setdefault(video.path, video)
        self._known = {video.id: video for video in by_file.values()}
        return sorted(by_file.values(), key=lambda video: video.name)

    def find(self, video_id: str) -> VideoFile | None:
        """The video of that id if it still is what it was."""
        known = self._known.get(video_id)
        if known is not None and self._video(self.folder / known.name) == known:
            return known
        self.list()
        return self._known.get(video_id)

    def _found(self) -> Iterator[VideoFile]:
        for parent, folders, names in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                if not name.startswith(".") and (video := self._video(Path(parent, name))) is not None:
                    yield video

    def _video(self, path: Path) -> VideoFile | None:
        """None for what is no video or lies elsewhere."""
        if path.suffix.lower() not in MEDIA_TYPES:
            return None
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self.folder):
                return None
            status = check_regular_file(real)
        except (OSError, RuntimeError, BadInput):  # gone, a circle of links, a pipe, empty
            return None
        name = path.relative_to(self.folder).as_posix()
        if not name.isprintable():
            name = name.encode("utf-8", "backslashreplace").decode()
        identity = f"{path.relative_to(self.folder)!r} {status.st_size} {status.st_mtime_ns}"
        video_id = "f-" + hashlib.blake2b(identity.encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()
        return VideoFile(video_id, name, real, status.st_size)
