"""A page that shows what is in a set of shards or in one of them: frames, spectrograms or sound, and timed words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reserve.config import SEGMENT_SECONDS, DataConfig
from reserve.config.load import build_section
from reserve.data.filters import FILTERS
from reserve.data.images import decode_jpeg
from reserve.data.shards.files import Files, is_url, open_files
from reserve.data.shards.layout import SETTINGS, shard_name, shard_number, shard_of
from reserve.data.shards.manifest import UNUSABLE, counted_as
from reserve.data.shards.read import Shard, ShardSet, read_file
from reserve.data.shards.records import (
    Settings,
    ShardRecord,
    SkippedFile,
    VideoRecord,
    read_record,
    read_settings,
)
from reserve.data.types import Segments
from reserve.errors import BadInput, DamagedSample
from reserve.fs import write_text_atomic
from reserve.report.templates import clock, render
from reserve.report.time_line import MOST_WORDS, PlacedWord, place_words
from reserve.tasks.pretrain.pictures import clip_uri, file_uri

TEMPLATE = "shards.html.jinja"
MOST_SKIPPED = 30
"""Skipped files of a shard that are listed."""
_MOST_LETTERS = 2000
_SETTINGS_OF = {
    "few_words": "min_words_per_minute",
    "language": "languages",
    "static": "max_static_share",
    "duplicates": "duplicates",
}


@dataclass(frozen=True, slots=True)
class ShownSegment:
    """A segment on the page. `damage` says why there is nothing else of it."""

    number: int
    start: float = 0.0
    playback_speed: int = 1
    frame: str = ""
    spectrogram: str = ""
    sound: str = ""
    words: tuple[PlacedWord, ...] = ()
    unseen_words: int = 0
    ticks: tuple[str, ...] = ()
    damage: str = ""

    @property
    def rows(self) -> int:
        return max((word.row for word in self.words), default=0) + 1


@dataclass(frozen=True, slots=True)
class ShownVideo:
    """A video on the page with the segments shown of it."""

    video_id: str
    shard: str
    record: VideoRecord | None
    title: str
    description: str
    tags: tuple[str, ...]
    segments: tuple[ShownSegment, ...]
    count: int


@dataclass(frozen=True, slots=True)
class _Source:
    """What is inspected: a set, or one shard of a set that need not be finished."""

    name: str
    subtitle: str
    files: Files
    settings: Settings
    data: DataConfig
    facts: list[tuple[str, str]]
    skipped: dict[str, int]
    skipped_files: tuple[SkippedFile, ...]
    shards: list[tuple[int, int]]
    """Number and count of videos of each shard that has some."""


def write_shard_page(
    where: str | Path, out: Path, *, videos: int = 8, video: str | None = None, segments: int = 24
) -> Path:
    """Writes a page of a set of shards, by its folder or URL, or of one shard, by its tar, to `out`.

    Shows `videos` videos evenly spaced through it, or only the one with the id `video`, and at most `segments` of each.
    The page loads nothing from the network and runs no script; text from videos is escaped. Damaged samples are shown
    as such. Raises BadInput where there are no such shards or no such video.
    """
    source = _open(where)
    places = [_find(source, video)] if video is not None else list(_spread(source.shards, videos))
    page = render(
        TEMPLATE,
        {"short": _short},
        source=source,
        filters=_filters(source),
        videos=list(_shown(source, places, segments)),
        most_words=MOST_WORDS,
    )
    # Names of files can hold characters that are not Unicode.
    write_text_atomic(out, page, errors="replace")
    return out


def _open(where: str | Path) -> _Source:
    folder, name = split_place(where)
    if Path(name).suffix in (".tar", ".index", ".json") and shard_number(Path(name).stem) is not None:
        return _open_shard(open_files(folder), Path(name).stem)
    shards = ShardSet.open(where)
    manifest = shards.manifest
    facts = [
        ("shards", f"{len(manifest.shards)}"),
        *_facts(manifest.videos, manifest.segments, manifest.words, manifest.seconds, manifest.bytes),
        *_setting_facts(shards.settings),
    ]
    numbers = [(entry.number, entry.videos) for entry in manifest.shards if entry.videos]
    return _Source(
        name, "A set of shards", shards.files, shards.settings, shards.data, facts, manifest.skipped, (), numbers
    )


def split_place(where: str | Path) -> tuple[str, str]:
    """The folder and the name of a set or a shard, by its path or URL."""
    place = str(where).rstrip("/") if is_url(str(where)) else str(Path(where).resolve())
    folder, _, name = place.rpartition("/")
    return folder or "/", name


def _open_shard(files: Files, name: str) -> _Source:
    try:
        settings = read_settings(read_file(files, SETTINGS))
        data = build_section(DataConfig, settings.data, f"{SETTINGS}: data.")
        record = _record(files, name)
    except (BadInput, ValueError) as error:
        raise BadInput(f"{files.where}: {error}") from error
    counts = (len(record.videos), record.num_segments, sum(video.words for video in record.videos))
    size = sum(file.bytes for file in (record.tar, record.index) if file)
    facts = [
        *_facts(*counts, sum(video.seconds for video in record.videos), size),
        *_setting_facts(settings),
    ]
    skipped = dict(Counter(counted_as(file) for file in record.skipped))
    which = "The only shard" if settings.num_shards == 1 else f"One of the {settings.num_shards} shards"
    subtitle = f"{which} of {split_place(files.where)[1]}"
    numbers = [(record.number, len(record.videos))] if record.videos else []
    return _Source(name, subtitle, files, settings, data, facts, skipped, record.skipped[:MOST_SKIPPED], numbers)


def _record(files: Files, name: str) -> ShardRecord:
    return read_record(read_file(files, f"{name}.json"), f"{name}.json")


def _facts(videos: int, segments: int, words: int, seconds: float, size: int) -> list[tuple[str, str]]:
    per_segment = f"{size / max(segments, 1) / 1e3:.1f} kB"
    return [
        ("videos", f"{videos:,}"),
        ("segments", f"{segments:,}"),
        ("words", f"{words:,}"),
        ("length", f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"),
        ("size", f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"),
        ("size of a segment", per_segment),
    ]


def _setting_facts(settings: Settings) -> list[tuple[str, str]]:
    return [
        ("sound", {"log_mel": "log-mel spectrograms", "flac": "FLAC"}.get(settings.sound, settings.sound)),
        ("decoders", ", ".join(settings.decoders)),
        ("seed", f"{settings.seed}"),
    ]


def _filters(source: _Source) -> list[tuple[str, str, int]]:
    """Name, setting and count of each filter, and of the files that could not be used."""
    rows = [(UNUSABLE, "no words, not decodable, too short …", source.skipped.get(UNUSABLE, 0))]
    for name in [*FILTERS, *sorted(source.skipped.keys() - {*FILTERS, UNUSABLE})]:
        setting = _SETTINGS_OF.get(name, "")
        value = _plain(source.settings.filter.get(setting, "")) if setting else ""
        rows.append((name, f"filter.{setting} {value}" if setting else "", source.skipped.get(name, 0)))
    return rows


def _plain(value: Any) -> str:
    return (", ".join(map(str, value)) or "any") if isinstance(value, list) else str(value)


def _spread(shards: Sequence[tuple[int, int]], wanted: int) -> Iterator[tuple[int, int]]:
    """Shard and place in it of `wanted` videos, evenly spaced through all."""
    total = sum(count for _, count in shards)
    first, left = 0, list(shards)
    for rank in _evenly(total, wanted):
        while rank >= first + left[0][1]:
            first += left.pop(0)[1]
        yield left[0][0], rank - first


def _evenly(total: int, wanted: int) -> list[int]:
    """At most `wanted` of `total` places, from the first on."""
    count = min(total, wanted)
    return [place * total // count for place in range(count)]


def _find(source: _Source, video_id: str) -> tuple[int, int]:
    """Where a video is. Raises BadInput, with the reason if it was skipped."""
    numbers = [number for number, _ in source.shards]
    if len(numbers) != 1:
        numbers = [shard_of(video_id, source.settings.num_shards)]
    for number in numbers:
        record = _record(source.files, shard_name(number))
        for place, video in enumerate(record.videos):
            if video.video_id == video_id:
                return number, place
        for file in record.skipped:
            if file.video_id == video_id:
                raise BadInput(f"{video_id} was skipped: {file.reason}")
    raise BadInput(f"{source.files.where}: there is no video {video_id!r:.200} in {source.name}")


def _shown(source: _Source, places: Sequence[tuple[int, int]], most: int) -> Iterator[ShownVideo]:
    for number, video in places:
        shard = Shard(source.files, number, source.data)
        if video >= len(shard.segment_counts()):
            raise BadInput(f"{shard.where}.index has fewer videos than its record")
        yield _shown_video(source, shard, number, video, most)


def _shown_video(source: _Source, shard: Shard, number: int, video: int, most: int) -> ShownVideo:
    video_id, count = shard.video_id(video), int(shard.segment_counts()[video])
    segments, metadata = [], None
    for segment in _evenly(count, most):
        try:
            loaded = shard.load(video, segment, segment + 1)
            with shard.naming(video):
                decode_jpeg(loaded.frames[0])
            segments.append(_shown_segment(loaded, segment))
            metadata = metadata or loaded.metadata
        except DamagedSample as error:
            segments.append(ShownSegment(segment, damage=str(error)))
    return ShownVideo(
        video_id=video_id,
        shard=shard_name(number),
        record=_video_record(source.files, shard_name(number), video_id),
        title=metadata.title if metadata else "",
        description=metadata.description if metadata else "",
        tags=metadata.tags[:40] if metadata else (),
        segments=tuple(segments),
        count=count,
    )


def _video_record(files: Files, name: str, video_id: str) -> VideoRecord | None:
    """What the record says of a video; None if it cannot be read."""
    try:
        videos = _record(files, name).videos
    except BadInput:
        return None
    return next((video for video in videos if video.video_id == video_id), None)


def _shown_segment(segment: Segments, number: int) -> ShownSegment:
    """One segment with its files embedded."""
    start, speed = float(segment.start[0]), int(segment.playback_speed[0])
    return ShownSegment(
        number=number,
        start=start,
        playback_speed=speed,
        frame=file_uri("image/jpeg", segment.frames[0]),
        spectrogram=clip_uri(segment.log_mel[0]),
        sound=file_uri("audio/flac", segment.sound[0]) if segment.sound else "",
        words=tuple(place_words(segment.words[0])),
        unseen_words=max(len(segment.words[0]) - MOST_WORDS, 0),
        ticks=tuple(clock(start + second * speed) for second in range(SEGMENT_SECONDS + 1)),
    )


def _short(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}…"
