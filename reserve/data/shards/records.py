"""What a set of shards says about itself: its settings, a record for each shard, and the manifest of all."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from reserve.data.shards.layout import FORMAT, MANIFEST, SETTINGS, shard_name
from reserve.errors import BadInput
from reserve.fs import replacing

MAX_BYTES = 2**30
"""Larger JSON files are not read: 20 million videos have a manifest of some 50 MB."""
MAX_NUMBER = 2**63 - 1
"""Larger numbers do not fit in the arrays that counts are kept in."""
_ADDED = {"added": True}
"""Marks fields that files of earlier releases lack."""
Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of a set, by its name in the set's folder."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """A video of a shard. `file` is what it was prepared from, `key` identifies the state of its files and the settings
    (as in a store), `seconds` is its length, `signature` what duplicates are found by (`reserve.data.filters`).
    `decoder` gave the pictures, and `decoder_reason` is why a preferred one did not; both empty if not known."""

    video_id: str
    file: str
    key: str
    segments: int
    words: int
    seconds: float
    transcript: str = ""
    audio: str = ""
    warnings: tuple[str, ...] = ()
    signature: str = ""
    decoder: str = field(default="", metadata=_ADDED)
    decoder_reason: str = field(default="", metadata=_ADDED)


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is not in its shard, and why. `filter` is the name of the filter that refused it; empty if it could
    not be used. Duplicates keep their signature and count of segments, to be compared again when the set changes."""

    video_id: str
    file: str
    key: str
    reason: str
    filter: str = ""
    signature: str = ""
    segments: int = 0


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What a shard holds. A shard without a usable video has no files."""

    number: int
    tar: FileRecord | None
    index: FileRecord | None
    videos: tuple[VideoRecord, ...]
    skipped: tuple[SkippedFile, ...]

    @property
    def name(self) -> str:
        return shard_name(self.number)

    @property
    def num_segments(self) -> int:
        return sum(video.segments for video in self.videos)


@dataclass(frozen=True, slots=True)
class Settings:
    """What every worker on a set agrees on. `data`, `filter` and `limits` are sections as maps, `versions` the
    packages of the first run, for people: they may differ between workers."""

    num_shards: int
    videos_per_shard: int
    sound: str
    seed: int
    audio_track: int | None
    decoders: tuple[str, ...]
    data: dict[str, Any]
    filter: dict[str, Any]
    limits: dict[str, Any]
    versions: dict[str, str]
    format: str = FORMAT


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard in the manifest: its counts, and its files with the record."""

    number: int
    videos: int
    segments: int
    words: int
    seconds: float
    skipped: int
    record: FileRecord
    tar: FileRecord | None
    index: FileRecord | None

    @property
    def name(self) -> str:
        return shard_name(self.number)


@dataclass(frozen=True, slots=True)
class Manifest:
    """All shards of a finished set. `settings` is the settings' file; `skipped` counts skipped files by the filter that
    refused them, those that could not be used under "unusable"."""

    settings: FileRecord
    videos: int
    segments: int
    words: int
    seconds: float
    bytes: int
    skipped: dict[str, int]
    shards: tuple[ShardEntry, ...]
    format: str = FORMAT
    digest: str = field(default="", compare=False)


def write_settings(folder: Path, settings: Settings) -> None:
    _write(folder / SETTINGS, settings)


def read_settings(data: bytes) -> Settings:
    """The settings of a set from its settings.json. Raises BadInput."""
    return _checked_format(_parsed(Settings, data, SETTINGS), SETTINGS)


def write_record(folder: Path, record: ShardRecord) -> FileRecord:
    """Writes a shard's record: from then on the shard is finished."""
    return _write(folder / f"{record.name}.json", record)


def read_record(data: bytes, name: str) -> ShardRecord:
    """A shard's record from its JSON file `name`. Raises BadInput."""
    record = _parsed(ShardRecord, data, name)
    if f"{record.name}.json" != name:
        raise BadInput(f"{name} is the record of {record.name}")
    _check_file_names(record.name, record.tar, record.index, name)
    return record


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json, with a digest of itself in it."""
    values = _plain(manifest)
    values["digest"] = _manifest_digest(values)
    _write_text(folder / MANIFEST, canonical(values))


def read_manifest(data: bytes) -> Manifest:
    """The manifest of a set. Raises BadInput if it is damaged."""
    manifest = _checked_format(_parsed(Manifest, data, MANIFEST), MANIFEST)
    values = json.loads(data)
    if canonical(values).encode() != data or manifest.digest != _manifest_digest(values):
        raise BadInput(f"{MANIFEST} is damaged: it does not have the digest that it names")
    if not manifest.shards:
        raise BadInput(f"{MANIFEST} names no shard")
    for name in ("videos", "segments"):
        if (total := sum(getattr(entry, name) for entry in manifest.shards)) != getattr(manifest, name):
            raise BadInput(f"{MANIFEST} counts {getattr(manifest, name)} {name}; its shards have {total}")
    for place, entry in enumerate(manifest.shards):
        if entry.number != place:
            raise BadInput(f"{MANIFEST} has shard {entry.number} in place {place}")
        if entry.record.name != f"{entry.name}.json":
            raise BadInput(f"{MANIFEST} names {entry.record.name!r:.80} as the record of {entry.name}")
        _check_file_names(entry.name, entry.tar, entry.index, MANIFEST)
    return manifest


def canonical(values: Mapping[str, Any]) -> str:
    """JSON with one spelling: the same values always have the same bytes."""
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def _check_file_names(shard: str, tar: FileRecord | None, index: FileRecord | None, where: str) -> None:
    """Names come from a file: none may lead out of its folder."""
    for file, suffix in ((tar, ".tar"), (index, ".index")):
        if file is not None and file.name != f"{shard}{suffix}":
            raise BadInput(f"{where} names {file.name!r:.80} as the file {shard}{suffix}")
    if (tar is None) != (index is None):
        raise BadInput(f"{where}: {shard} has a tar or an index without the other")


def _manifest_digest(values: Mapping[str, Any]) -> str:
    without = {name: value for name, value in values.items() if name != "digest"}
    return hashlib.sha256(canonical(without).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(asdict(value)))


def _write(path: Path, value: Any) -> FileRecord:
    return _write_text(path, canonical(_plain(value)))


def _write_text(path: Path, text: str) -> FileRecord:
    data = text.encode("ascii")
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return FileRecord(path.name, len(data), hashlib.sha256(data).hexdigest())


def _checked_format(value: Kind, name: str) -> Kind:
    if value.format != FORMAT:  # type: ignore[attr-defined]
        raise BadInput(f"{name} has the format {value.format!r:.80}, not {FORMAT!r}")  # type: ignore[attr-defined]
    return value


def _parsed(kind: type[Kind], data: bytes, name: str) -> Kind:
    if len(data) > MAX_BYTES:
        raise BadInput(f"{name} has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        values = json.loads(data)
        return _built(kind, values)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError) as error:
        raise BadInput(f"{name} is damaged: {error}") from error


def _built(kind: Any, values: Any) -> Any:
    """An object of a record's class from parsed JSON. Raises ValueError or TypeError where a field has another type."""
    hints = _field_types(kind)
    names, added = hints.keys(), _added_fields(kind)
    if not isinstance(values, dict) or not names - added <= set(values) <= names:
        found = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{kind.__name__} has the fields {sorted(names)}; found {found!r:.200}")
    return kind(**{name: _value(hints[name], values[name], name) for name in names if name in values})


@functools.cache
def _added_fields(kind: Any) -> set[str]:
    return {each.name for each in fields(kind) if each.metadata == _ADDED}


@functools.cache
def _field_types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, value: Any, name: str) -> Any:
    optional = getattr(hint, "__args__", ())
    if type(None) in optional:
        if value is None:
            return None
        (hint,) = (each for each in optional if each is not type(None))
    origin = getattr(hint, "__origin__", hint)
    if origin is tuple and isinstance(value, list):
        inner = hint.__args__[0]
        return tuple(_value(inner, each, name) for each in value)
    if origin is dict and isinstance(value, dict):
        inner = hint.__args__[1]
        return value if inner is Any else {key: _value(inner, each, name) for key, each in value.items()}
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint in (str, int) and type(value) is hint and (hint is str or 0 <= value <= MAX_NUMBER):
        return value
    if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
        return _built(hint, value)
    raise TypeError(f"{name} cannot be {value!r:.80}")
