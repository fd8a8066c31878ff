"""Finds what is wrong with a set of shards: damaged bytes, missing and foreign files, and files that disagree."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from reserve.config import DataConfig
from reserve.config.load import build_section
from reserve.data.shards.files import Files, LocalFiles, open_files
from reserve.data.shards.index import ShardIndex
from reserve.data.shards.layout import MANIFEST, SETTINGS, WORK, Sound, shard_name, shard_number
from reserve.data.shards.manifest import counted_as, file_record, shard_entry
from reserve.data.shards.records import (
    MAX_BYTES,
    FileRecord,
    Manifest,
    Settings,
    ShardEntry,
    ShardRecord,
    read_manifest,
    read_record,
    read_settings,
)
from reserve.data.shards.verify_tar import Contents, TarStream, check_alone, check_with_index
from reserve.errors import BadInput
from reserve.fs import check_regular_file


@dataclass(frozen=True, slots=True)
class Fault:
    """A file of a set and what is wrong with it."""

    file: str
    what: str


@dataclass(slots=True)
class Counts:
    """What was read, of one shard or of a set."""

    videos: int = 0
    segments: int = 0
    words: int = 0
    seconds: float = 0.0
    bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome: how many `shards` were checked and what they hold, the number of `faults`, the `seconds` it took and
    the bytes read, and how many shards are `unfinished` in a set without a manifest (None where there is one)."""

    shards: int
    counts: Counts
    faults: int
    seconds: float
    bytes_read: int
    unfinished: int | None


def verify_shards(
    where: Files | str | Path, *, workers: int = 1, on_fault: Callable[[Fault], None] | None = None
) -> Verification:
    """Reads every byte of a set and calls `on_fault` with each fault, in the order of the shards.

    `where` is a folder, or a URL: then without its cache, and foreign files are not looked for. `workers` processes (0:
    this one) share the shards. A sample at a time is in memory, and an index. Of a set that is being prepared, checks
    the shards that are finished. Raises BadInput if there is no set.
    """
    begun = time.monotonic()
    files = open_files(where) if isinstance(where, str | Path) else where
    faults = 0

    def fault(file: str, what: str) -> None:
        nonlocal faults
        faults += 1
        if on_fault is not None:
            on_fault(Fault(file, what))

    names = _listed(files)
    manifest, settings, read = _read_head(files, names, fault)
    numbers = _numbers(files, names, manifest, settings)
    entries = dict(enumerate(manifest.shards)) if manifest else {}
    check = partial(_check_shard, files, settings)
    total = Counts()
    for checked in _run(check, [(number, entries.get(number)) for number in numbers], workers):
        read += checked.bytes_read
        for each in checked.faults:
            fault(each.file, each.what)
        _add(total, checked.counts)
    if manifest:
        _check_totals(manifest, settings, total, faults, fault)
    for name in _foreign(names, numbers, manifest, settings):
        fault(name, "not a file of this set")
    has_manifest = manifest is not None or (names is not None and MANIFEST in names)
    unfinished = None if has_manifest else settings.num_shards - len(numbers) if settings else 0
    return Verification(len(numbers), total, faults, time.monotonic() - begun, read, unfinished)


def _read_head(
    files: Files, names: set[str] | None, fault: Callable[[str, str], None]
) -> tuple[Manifest | None, Settings | None, int]:
    """The manifest and the settings as far as they can be read, and the bytes of both."""
    manifest, settings, read = None, None, 0
    data: dict[str, bytes] = {}
    for name in (MANIFEST, SETTINGS):
        if names is not None and name not in names:
            continue
        try:
            data[name] = _small_file(files, name)
            read += len(data[name])
            if name == MANIFEST:
                manifest = read_manifest(data[name])
            else:
                settings = read_settings(data[name])
                build_section(DataConfig, settings.data, f"{SETTINGS}: data.")
        except (BadInput, ValueError) as error:
            fault(name, str(error))
    if not data:
        raise BadInput(f"{files.where}: not a set of shards: it has neither {MANIFEST} nor {SETTINGS}")
    if SETTINGS not in data and names is not None:
        fault(SETTINGS, "is not there")
    elif names is not None and not names & {MANIFEST, WORK}:
        fault(MANIFEST, f"is not there, and without {WORK} nothing is under way that would write it")
    elif manifest and SETTINGS in data and manifest.settings != file_record(SETTINGS, data[SETTINGS]):
        fault(SETTINGS, f"damaged: its bytes are not those that {MANIFEST} names")
    return manifest, settings, read


def _numbers(
    files: Files, names: set[str] | None, manifest: Manifest | None, settings: Settings | None
) -> Sequence[int]:
    """The shards to check: all of a finished set, else those that have a record."""
    if manifest:
        return range(len(manifest.shards))
    if names is None:
        raise BadInput(f"{files.where} is not finished, or its {MANIFEST} is damaged; verify a local copy of it")
    records = {shard_number(name.removesuffix(".json")) for name in names if name.endswith(".json")}
    last = settings.num_shards if settings else len(names)
    return sorted(number for number in records if number is not None and number < last)


def _run(check: Callable[[Any], _Checked], shards: Sequence[Any], workers: int) -> Iterator[_Checked]:
    """The results in the order of the shards."""
    if workers < 1 or len(shards) < 2:
        yield from map(check, shards)
        return
    # Spawned, since a fork is unsafe with threads.
    with ProcessPoolExecutor(min(workers, len(shards)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(check, shards)


@dataclass(slots=True)
class _Checked:
    """What came of one shard."""

    counts: Counts = field(default_factory=Counts)
    bytes_read: int = 0
    faults: list[Fault] = field(default_factory=list)


def _check_shard(files: Files, settings: Settings | None, shard: tuple[int, ShardEntry | None]) -> _Checked:
    number, entry = shard
    name, checked = shard_name(number), _Checked()

    def fault(suffix: str, what: str) -> None:
        checked.faults.append(Fault(f"{name}.{suffix}", what))

    record = _check_record(files, name, entry, fault, checked)
    known = record or entry
    if known is None or known.tar is None or known.index is None:
        return checked
    index = _check_index(files, known.index, settings, record, fault, checked)
    sound: Sound = index.sound if index else settings.sound if settings else "log_mel"  # type: ignore[assignment]
    stream = TarStream(files, known.tar.name)
    try:
        _regular(files, known.tar.name)
        report = partial(fault, "tar")
        contents = check_with_index(stream, index, report) if index else check_alone(stream, sound, report)
    except BadInput as error:
        fault("tar", _without_path(error, files, known.tar.name))
        return checked
    checked.bytes_read += contents.size
    is_compared = not any(each.file == known.index.name for each in checked.faults)
    _compare(contents, known.tar, known.index, is_compared, fault)
    return checked


def _check_record(
    files: Files, name: str, entry: ShardEntry | None, fault: Callable[[str, str], None], checked: _Checked
) -> ShardRecord | None:
    """A shard's record, if it can be read."""
    try:
        data = _small_file(files, f"{name}.json")
        checked.bytes_read += len(data)
        record = read_record(data, f"{name}.json")
    except BadInput as error:
        fault("json", str(error) if entry else f"{error}; its tar and index are not checked")
        return None
    own = file_record(f"{name}.json", data)
    if entry and entry.record != own:
        fault("json", f"damaged: its bytes are not those that {MANIFEST} names")
        return None
    if entry and (made := shard_entry(record, own)) != entry:
        differing = [each.name for each in fields(made) if getattr(made, each.name) != getattr(entry, each.name)]
        fault("json", f"disagrees with {MANIFEST} about {', '.join(differing)}")
    counts = checked.counts
    made = shard_entry(record, own)
    counts.videos, counts.segments, counts.words, counts.seconds = made.videos, made.segments, made.words, made.seconds
    counts.bytes = sum(file.bytes for file in (record.tar, record.index) if file)
    counts.skipped.update(counted_as(file) for file in record.skipped)
    return record


def _check_index(
    files: Files,
    expected: FileRecord,
    settings: Settings | None,
    record: ShardRecord | None,
    fault: Callable[[str, str], None],
    checked: _Checked,
) -> ShardIndex | None:
    """A shard's index, if the tar can be checked with it."""
    try:
        _regular(files, expected.name)
        path = files.path(expected.name)
        is_whole = _digest(path, checked) == (expected.bytes, expected.sha256)
        index = ShardIndex(path)
    except (BadInput, OSError) as error:
        fault("index", f"{_without_path(error, files, expected.name)}; the tar is checked without it")
        return None
    damaged = [index.video_id(video) for video in range(index.num_videos) if not _has_texts(index, video)]
    if damaged:
        fault("index", f"damaged: the words of {', '.join(damaged)}")
    elif not is_whole:
        fault("index", "damaged: its bytes are not those that the record names")
    if settings and index.sound != settings.sound:
        fault("index", f"its sound is {index.sound}, that of the settings {settings.sound}")
    found = [(index.video_id(video), count) for video, count in enumerate(index.segment_counts().tolist())]
    if record and found != [(video.video_id, video.segments) for video in record.videos]:
        fault("index", "it has other videos, or other counts of their segments, than the record")
        return None
    return index if is_whole or record else None


def _digest(path: Path, checked: _Checked) -> tuple[int, str]:
    """Size and sha256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while part := file.read(1 << 22):
            digest.update(part)
            size += len(part)
    checked.bytes_read += size
    return size, digest.hexdigest()


def _has_texts(index: ShardIndex, video: int) -> bool:
    try:
        index.texts(video)
    except BadInput:
        return False
    return True


def _compare(
    contents: Contents, tar: FileRecord, index: FileRecord, is_compared: bool, fault: Callable[[str, str], None]
) -> None:
    """Compares a tar that was read with what the record says of it and, unless that is damaged, of its index."""
    if contents.rebuilt is None:
        return  # It is said already what is damaged.
    if (contents.size, contents.sha256) != (tar.bytes, tar.sha256):
        fault("tar", "its samples are whole, but its bytes are not those that the record names")
    if is_compared and hashlib.sha256(contents.rebuilt.data()).hexdigest() != index.sha256:
        fault("index", "it is not the index that the tar makes")


def _check_totals(
    manifest: Manifest, settings: Settings | None, total: Counts, faults: int, fault: Callable[[str, str], None]
) -> None:
    """Compares the manifest's sums with those of the records, once these are known to be whole."""
    if settings and len(manifest.shards) != settings.num_shards:
        fault(MANIFEST, f"it has {len(manifest.shards)} shards, {SETTINGS} {settings.num_shards}")
    if faults:
        return
    found = {each.name: getattr(total, each.name) for each in fields(total)}
    found["skipped"] = dict(sorted(total.skipped.items()))
    for name, value in found.items():
        if getattr(manifest, name) != value:
            fault(MANIFEST, f"its {name} are {getattr(manifest, name)!r:.200}, those of the records {value!r:.200}")


def _add(total: Counts, counts: Counts) -> None:
    for each in fields(total):
        setattr(total, each.name, getattr(total, each.name) + getattr(counts, each.name))


def _listed(files: Files) -> set[str] | None:
    """Names in the folder; None where it is not a local one."""
    if not isinstance(files, LocalFiles):
        return None
    try:
        return {path.name for path in Path(files.where).iterdir()}
    except OSError as error:
        raise BadInput(f"{files.where}: not a set of shards: {error.strerror or error}") from error


def _foreign(
    names: set[str] | None, numbers: Sequence[int], manifest: Manifest | None, settings: Settings | None
) -> list[str]:
    """Names that are no file of the set. What an unfinished preparation leaves does not count before the manifest."""
    known = {MANIFEST, SETTINGS, WORK}
    for number in numbers:
        has_files = not manifest or manifest.shards[number].tar is not None
        known |= {f"{shard_name(number)}.{suffix}" for suffix in ("json", *(("tar", "index") if has_files else ()))}
    found = sorted((names or set()) - known)
    if manifest:
        return found
    last = settings.num_shards if settings else len(found)
    return [name for name in found if not _is_unfinished(name, last)]


def _is_unfinished(name: str, num_shards: int) -> bool:
    """Whether a file may be a shard's, or a part of one, that is not finished."""
    shard, _, suffix = name.removeprefix(".").partition(".")
    number = shard_number(shard)
    is_part = name.startswith(".") and name.endswith(".partial")
    return is_part or (number is not None and number < num_shards and suffix in ("tar", "index"))


def _small_file(files: Files, name: str) -> bytes:
    """A JSON file. Raises BadInput without naming it."""
    try:
        path = files.path(name)
        status = check_regular_file(path)
        if status.st_size > MAX_BYTES:
            raise BadInput(f"{status.st_size} bytes; at most {MAX_BYTES} are read")
        return path.read_bytes()
    except (BadInput, OSError) as error:
        raise BadInput(_without_path(error, files, name)) from error


def _regular(files: Files, name: str) -> None:
    """Raises BadInput unless a local file is a regular one: a pipe would block for ever."""
    if isinstance(files, LocalFiles):
        check_regular_file(files.path(name))


def _without_path(error: Exception, files: Files, name: str) -> str:
    """What is wrong with a file, for a report that names the file itself."""
    reason = getattr(error, "strerror", None) or str(error)
    return reason.removeprefix(f"{files.path(name)}: ") if isinstance(files, LocalFiles) else reason
