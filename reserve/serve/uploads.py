"""The server's own folder: uploaded videos and the indexes of all videos."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from anyio import fail_after, to_thread

from reserve.errors import BadInput, UsageError
from reserve.fs import is_environment_failure, write_text_atomic
from reserve.serve.limits import MEGABYTE, Limits
from reserve.serve.playback import MEDIA_TYPES
from reserve.serve.video_files import VideoFile

UPLOADS, INDEXES = "uploads", "indexes"
MARKER = "reserve-serve.json"
_FORMAT = "reserve-serve-1"
_VIDEO, _INFO = "video", "info.json"
_PARTIAL, _ID = ".partial-", re.compile(r"u-[0-9a-f]{24}")
_NAME_CHARACTERS = 200
_OWNER_ALONE = 0o700

logger = logging.getLogger(__name__)


class UploadRefused(Exception):
    """`status` is that of HTTP; the message is for the visitor."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Storage:
    """`folder` of one server at a time: `uploads/ID/` holds a video and its name, `indexes/MODEL/ID/` an index.

    Other accounts of the machine cannot read them.

    An upload is written into a folder that is renamed when it is complete, so it is there with all it needs or not at
    all.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        """Locks the folder and removes what an earlier server left unfinished. Raises UsageError if another server has
        it, or if it holds anything without the file MARKER, which says that it is a server's."""
        from filelock import FileLock, Timeout

        self.limits = limits
        self.uploads, self.indexes = folder / UPLOADS, folder / INDEXES
        self.folder = folder
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
            raise UsageError(f"{folder} is not empty and not a server's: it has no {MARKER}; choose another --folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(folder / MARKER, json.dumps({"format": _FORMAT}) + "\n")
        for own in (self.uploads, self.indexes):
            own.mkdir(mode=_OWNER_ALONE, exist_ok=True)
        self._lock = FileLock(folder / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(f"another server uses {folder}; give this one a --folder of its own") from None
        self._expected: dict[str, int] = {}
        self._unreadable: set[str] = set()
        here = set(os.listdir(self.uploads))
        for name in here:
            if name.startswith(_PARTIAL) and _ID.fullmatch(name.removeprefix(_PARTIAL)):
                shutil.rmtree(self.uploads / name, ignore_errors=True)
        for index in self.indexes.glob("*/u-*"):
            if _ID.fullmatch(index.name) and index.name not in here:
                shutil.rmtree(index, ignore_errors=True)

    def close(self) -> None:
        self._lock.release()

    def list(self) -> list[VideoFile]:
        """The uploaded videos by name."""
        found = [video for entry in self.uploads.iterdir() if (video := self.find(entry.name)) is not None]
        return sorted(found, key=lambda video: video.name)

    def find(self, video_id: str) -> VideoFile | None:
        """The uploaded video of that id, None if there is none or its folder cannot be read, which is logged once."""
        if not _ID.fullmatch(video_id):
            return None
        folder = self.uploads / video_id
        try:
            name = json.loads((folder / _INFO).read_text("utf-8"))["name"]
            if not isinstance(name, str):
                raise TypeError(f"its name is {name!r:.80}")
            path = next(path for path in folder.iterdir() if path.stem == _VIDEO)
            return VideoFile(video_id, name, path, path.stat().st_size, uploaded=True)
        except (OSError, StopIteration, ValueError, KeyError, TypeError, RecursionError) as error:
            if folder.is_dir() and video_id not in self._unreadable:  # rather than deleted meanwhile
                self._unreadable.add(video_id)
                logger.warning("%s is no uploaded video and is left out: %r", folder, error)
            return None

    def index_folder(self, model: str, video_id: str) -> Path:
        """Where that model's index of a video is or will be."""
        return self.indexes / model / video_id

    def delete(self, video: VideoFile) -> None:
        """Removes an uploaded video and its indexes."""
        gone = self.uploads / f"{_PARTIAL}u-{secrets.token_hex(12)}"
        (self.uploads / video.id).rename(gone)
        shutil.rmtree(gone)
        for index in self.indexes.glob(f"*/{video.id}"):
            shutil.rmtree(index, ignore_errors=True)

    async def add(
        self, name: str, length: int | None, chunks: AsyncIterator[bytes], check: Callable[[Path], object]
    ) -> VideoFile:
        """Stores an upload of `length` bytes, if the visitor's program says how many they are.

        `name` is what the visitor calls the file; only its ending matters. `check` gets the file, in a thread, and
        raises BadInput if it is no video. Raises UploadRefused, and whatever `chunks` raises; nothing is left then.
        """
        name = _shown_name(name)
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in MEDIA_TYPES:
            raise UploadRefused(415, f"{name}: a video ends in {', '.join(sorted(MEDIA_TYPES))}")
        self._check_size(length or 0)
        video_id = f"u-{secrets.token_hex(12)}"
        with self._reserved(video_id, length or self.limits.upload_bytes) as partial:
            path = partial / f"{_VIDEO}{suffix}"
            try:
                await self._write(path, chunks)
                write_text_atomic(partial / _INFO, json.dumps({"name": name}) + "\n")
            except OSError as error:
                if is_environment_failure(error):
                    raise UploadRefused(507, f"the server cannot store it: {error.strerror}") from error
                raise
            try:
                await to_thread.run_sync(check, path)
            except BadInput as error:
                raise UploadRefused(415, str(error).replace(str(path), name)) from error
            partial.rename(self.uploads / video_id)
        found = self.find(video_id)
        if found is None:
            raise UploadRefused(410, f"{name}: removed as soon as it was there")
        return found

    async def _write(self, path: Path, chunks: AsyncIterator[bytes]) -> None:
        written = 0
        with path.open("xb") as file:
            async for chunk in self._timely(chunks):
                written += len(chunk)
                self._check_size(written)
                await to_thread.run_sync(file.write, chunk)
            file.flush()
            await to_thread.run_sync(os.fsync, file.fileno())

    async def _timely(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks as long as they come: what stalls would keep its space from others."""
        while True:
            try:
                with fail_after(self.limits.stall_seconds):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise UploadRefused(408, f"nothing came for {self.limits.stall_seconds} s; upload it again") from None
            yield chunk

    def _check_size(self, size: int) -> None:
        if size > self.limits.upload_bytes:
            raise UploadRefused(
                413, f"the video is larger than {self.limits.upload_bytes / MEGABYTE:g} MB, the most for one upload"
            )

    @contextmanager
    def _reserved(self, video_id: str, size: int) -> Iterator[Path]:
        """A new folder for an upload, whose `size` counts as stored while it is written."""
        if self._stored() + sum(self._expected.values()) + size > self.limits.folder_bytes:
            raise UploadRefused(
                507, f"the server stores at most {self.limits.folder_bytes / MEGABYTE:g} MB; delete a video first"
            )
        partial = self.uploads / f"{_PARTIAL}{video_id}"
        self._expected[video_id] = size
        try:
            partial.mkdir()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            del self._expected[video_id]

    def _stored(self) -> int:
        """Bytes of all that is complete."""
        total = 0
        for parent, folders, names in os.walk(self.folder):
            folders[:] = [folder for folder in folders if not folder.startswith(_PARTIAL)]
            for name in names:
                try:
                    total += os.lstat(Path(parent, name)).st_size
                except FileNotFoundError:  # deleted meanwhile
                    continue
        return total


def _shown_name(name: str) -> str:
    """The last part of a path of any system, without what cannot be printed, the ending kept."""
    last = PurePosixPath(PureWindowsPath(name).name).name
    printable = "".join(char for char in last if char.isprintable()).strip()
    stem, suffix = PurePosixPath(printable).stem, PurePosixPath(printable).suffix
    return f"{stem[: _NAME_CHARACTERS - len(suffix)]}{suffix}" if len(suffix) < 10 else printable[:_NAME_CHARACTERS]
