"""Builds and extends an index of moments: encodes the videos that it does not have yet, a part at a time."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from reserve.config import TrainConfig
from reserve.errors import BadInput
from reserve.fs import remove_partial_files
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.precision import autocast
from reserve.tasks.search.index import MANIFEST, PARTS, model_identity, part_files, read_manifest, write_manifest
from reserve.tasks.search.parts import SUFFIX, PartHeader, read_header, read_part, write_part
from reserve.tasks.search.sources import EncodedVideos, Source, find_sources

logger = logging.getLogger(__name__)

_LOCK = "lock"


@dataclass(frozen=True)
class IndexReport:
    """What a build did: `added` and `kept` videos, and the reason for each that was `skipped`. `moments` and `sounds`
    are all that the index holds."""

    added: int
    kept: int
    skipped: tuple[str, ...]
    moments: int
    sounds: int
    seconds: float

    def __str__(self) -> str:
        parts = [f"{self.moments} moments of {self.added + self.kept} videos"]
        if self.added:
            parts.append(f"{self.added} encoded in {self.seconds:.1f} s")
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped")
        return ", ".join(parts)


def build_index(
    places: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    model: MerlotReserve,
    *,
    config: TrainConfig | None = None,
    workers: int = 1,
    mirror: bool = False,
    progress: Callable[[int, int], None] | None = None,
    windows: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Encodes the videos in some places into the index in `folder`, which is made if there is none.

    Args:
        places: Video files, folders that are searched for them, and sets of prepared shards, folders or URLs.
        folder: The index. What it has already is kept: a file that has not changed in size or time of modification, a
            shard of the same set. An interrupted build goes on where it stopped.
        model: The model, on its device and in evaluation mode.
        config: Precision, and the cache of shards; by default float32.
        workers: Threads that decode a file each and take turns with the model. Each holds the 8 frames of a window and
            the whole sound of its file, 320 MB an hour.
        mirror: Remove what the places no longer hold from the index. Otherwise it stays.
        progress: Called with the sources done and in all, files and shards.
        windows: Called within a source with the windows of 40 s read and how many it has. What it raises ends the
            build.

    Videos that cannot be decoded are logged, counted and skipped; they are tried again by the next build, and what the
    index held of an earlier state of them is removed. An error or Ctrl-C ends the build at the next window. Raises
    BadInput where no video of the places can be used, a place does not exist or another process builds the index, and
    ValueError for an index of another model or a model whose vectors are not finite.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}")
    began, folder = time.monotonic(), Path(folder)
    config = config or TrainConfig(precision="float32")
    sources = find_sources(places, config)
    with _locked(folder):
        outcomes = _build(sources, folder, model, config, workers, mirror, progress, windows)
        headers = [read_header(path) for path in part_files(folder)]
    skipped = tuple(reason for outcome in outcomes for reason in outcome.skipped)
    added, kept = sum(outcome.added for outcome in outcomes), sum(outcome.kept for outcome in outcomes)
    if not added and not kept:
        raise BadInput(f"none of the videos could be used: {'; '.join(skipped[:3])}{'; …' if len(skipped) > 3 else ''}")
    return IndexReport(
        *(added, kept, skipped),
        moments=sum(header.moments for header in headers),
        sounds=sum(header.sounds for header in headers),
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True)
class _Outcome:
    """What became of a source: videos `added` or `kept`, and the reasons against others."""

    added: int = 0
    kept: int = 0
    skipped: tuple[str, ...] = ()


class _Ended(Exception):
    """The build is over; raised in the threads that still encode."""


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder of an index, if it is none of something else, and keeps other builds out of it."""
    from filelock import FileLock, Timeout

    if not (folder / MANIFEST).exists() and folder.is_dir() and any(path.name != _LOCK for path in folder.iterdir()):
        raise BadInput(f"{folder} is not empty and holds no index: it has no {MANIFEST}; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(
            f"another process adds to the index {folder}; try again when it has finished, or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _build(
    sources: Sequence[Source],
    folder: Path,
    model: MerlotReserve,
    config: TrainConfig,
    workers: int,
    mirror: bool,
    progress: Callable[[int, int], None] | None,
    windows: Callable[[int, int], None] | None,
) -> list[_Outcome]:
    """Writes the parts of an index that are missing; see `build_index`."""
    identity = _prepare(folder, model)
    wanted = {part_path(folder, source): source for source in sources}
    if mirror:
        for path in set(part_files(folder)) - wanted.keys():
            path.unlink(missing_ok=True)
    turn, ended = threading.Lock(), threading.Event()

    def window(done: int, total: int) -> None:
        if ended.is_set():
            raise _Ended
        if windows is not None:
            windows(done, total)

    def work(item: tuple[Path, Source]) -> _Outcome:
        path, source = item
        try:
            key = source.key()  # before it is read: what changes meanwhile is encoded again
            known = _current(path, identity, key)
            if known is None:  # an earlier state must not be found, even if the videos cannot be decoded now
                path.unlink(missing_ok=True)
            elif not known.skipped:
                return _Outcome(kept=len(known.videos))
            before = None if known is None else EncodedVideos(known.videos, read_part(path)[1])
            with autocast(config, model.device):  # which each thread has its own of
                found = source.encode(model, turn, window, before)
            write_part(path, PartHeader(identity, key, source.place, found.videos, found.skipped), found.moments)
            kept = 0 if known is None else len(known.videos)
            return _Outcome(len(found.videos) - kept, kept, found.skipped)
        except BadInput as error:
            logger.warning("%s; it is left out", error)
            return _Outcome(skipped=(str(error),))

    outcomes: list[_Outcome] = []
    with ThreadPoolExecutor(workers, initializer=_use_device, initargs=(model.device,)) as pool:
        try:
            for done, outcome in enumerate(pool.map(work, wanted.items()), 1):
                outcomes.append(outcome)
                if progress is not None:
                    progress(done, len(wanted))
        except BaseException:
            ended.set()
            pool.shutdown(cancel_futures=True)
            raise
    return outcomes


def part_path(folder: Path, source: Source) -> Path:
    """Where the part of a source is."""
    digest = hashlib.sha256(source.identity.encode("utf-8", "surrogateescape")).hexdigest()
    return folder / PARTS / f"{digest[:32]}{SUFFIX}"


def _prepare(folder: Path, model: MerlotReserve) -> str:
    """Makes an index of the folder, or checks that it is one of this model. Returns the model's identity."""
    identity = model_identity(model)
    if (folder / MANIFEST).exists():
        made_by, _ = read_manifest(folder)
        if made_by != identity:
            raise ValueError(f"{folder} is an index made by another model; choose another folder, or that model")
    write_manifest(folder, identity, model.config.hidden_size)
    remove_partial_files(folder / PARTS)
    return identity


def _current(path: Path, model: str, key: str) -> PartHeader | None:
    """The header of a part if it is there and holds what the source of that key is now."""
    if not path.exists():
        return None
    try:
        header = read_header(path)
        if header.skipped:  # the build needs its vectors too
            read_part(path)
    except BadInput as error:
        logger.warning("%s", error)
        return None
    return header if (header.model, header.key) == (model, key) else None


def _use_device(device: torch.device) -> None:
    """Makes `device` the current one of this thread, which a new thread does not inherit."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
