"""Checks a tar of a shard byte by byte, with its index or without, a sample at a time."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from reserve.data.shards.damage import damaged_part
from reserve.data.shards.files import Files
from reserve.data.shards.index import IndexBuilder, ShardIndex
from reserve.data.shards.layout import (
    BLOCK,
    END,
    PICTURE,
    SOUND_SUFFIXES,
    TEXT,
    Sound,
    member_header,
    padding,
    sample_key,
    sample_length,
)
from reserve.errors import BadInput

MAX_SAMPLE = 1 << 26
"""Bytes of a sample, 64 MiB; a usual one has 60 kB. Larger ones are not held in memory, and cannot be right."""
_CHUNK = 1 << 22
_MEMBER = re.compile(r"([0-9a-f]{16}-\d{5})\.([a-z]+)")


class TarStream:
    """A file of a set, read from its beginning to its end once, with its size and digest so far."""

    def __init__(self, files: Files, name: str) -> None:
        self._files, self.name = files, name
        self._digest = hashlib.sha256()
        self._chunk, self._place = b"", 0
        self._failure = ""
        self.size = 0

    @property
    def end(self) -> str:
        """Where the file ends, and why if it is not known to."""
        return f"after {self.size} bytes{f' ({self._failure})' if self._failure else ''}"

    def read(self, count: int) -> bytes:
        """The next `count` bytes; fewer at the end. Raises BadInput where the file cannot be read at all."""
        parts = []
        while count:
            if self._place == len(self._chunk):
                self._chunk, self._place = self._next_chunk(), 0
                if not self._chunk:
                    break
            part = self._chunk[self._place : self._place + count]
            parts.append(part)
            self._place += len(part)
            self.size += len(part)
            self._digest.update(part)
            count -= len(part)
        return b"".join(parts)

    def _next_chunk(self) -> bytes:
        try:
            return self._files.read_range(self.name, self.size, self.size + _CHUNK)
        except BadInput as error:
            # Some servers refuse a range after the end, and disks a block that is gone.
            if not self.size:
                raise
            self._failure = str(error)
            return b""

    def skip(self, count: int) -> int:
        """Reads `count` bytes without keeping them. Returns how many there were."""
        left = count
        while left and (data := self.read(min(left, _CHUNK))):
            left -= len(data)
        return count - left

    def finish(self) -> str:
        """Reads to the end. Returns the file's sha256."""
        while self.read(_CHUNK):
            pass
        return self._digest.hexdigest()


class Contents(NamedTuple):
    """What a tar was found to hold: `rebuilt` is the index that its samples make, if all are whole."""

    rebuilt: IndexBuilder | None
    sha256: str
    size: int


def check_with_index(stream: TarStream, index: ShardIndex, fault: Callable[[str], None]) -> Contents:
    """Checks every sample that `index` lists, and that there is nothing else. Calls `fault` with what is wrong."""
    builder: IndexBuilder | None = IndexBuilder(index.sound)
    for video, count in enumerate(index.segment_counts().tolist()):
        video_id = index.video_id(video)
        first = int(index.video_first[video])
        for segment in range(count):
            sizes = _sizes(index, first + segment)
            length = sample_length(sizes)
            sample = f"segment {segment} of {video_id}"
            if length > MAX_SAMPLE:
                fault(f"{sample} has {length} bytes by the index; a sample has at most {MAX_SAMPLE}")
                builder = None
                data = b""
                found = stream.skip(length)
            else:
                data = stream.read(length)
                found = len(data)
            if found < length:
                fault(f"cut short {stream.end}: {_lost(index, video, segment)}")
                return Contents(None, stream.finish(), stream.size)
            if data and not _check_sample(data, index, first + segment, video_id, segment, builder, fault):
                builder = None
        if builder is not None:
            builder.end_video(video_id)
    if stream.read(len(END)) != END:
        fault("its end is damaged or cut short")
        builder = None
    elif stream.skip(1):
        fault(f"more follows its end, from byte {stream.size - 1} on")
        builder = None
    return Contents(builder, stream.finish(), stream.size)


def _check_sample(
    data: bytes,
    index: ShardIndex,
    row: int,
    video_id: str,
    segment: int,
    builder: IndexBuilder | None,
    fault: Callable[[str], None],
) -> bool:
    """Checks a sample's bytes and that it is the one that the index names. Adds it to `builder` if it is whole."""
    key, crc = sample_key(video_id, segment), int(index.sample_crc[row])
    sample = f"segment {segment} of {video_id}"
    sizes = _sizes(index, row)
    if zlib.crc32(data) != crc:
        fault(f"{sample} ({key}) is damaged: {damaged_part(data, key, sizes, index.sound, crc)}")
        return False
    suffixes = (PICTURE, SOUND_SUFFIXES[index.sound], TEXT)
    headers = [member_header(f"{key}.{suffix}", size) for suffix, size in zip(suffixes, sizes, strict=True)]
    start = 0
    for header, size in zip(headers, sizes, strict=True):
        if data[start : start + BLOCK] != header:
            fault(f"holds another sample where the index has {sample} ({key})")
            return False
        start += BLOCK + size + padding(size)
    text = data[start - sizes[2] - padding(sizes[2]) :][: sizes[2]]
    try:
        found_id, found_segment, words = _parse_text(text)
    except BadInput as error:
        fault(f"{sample} ({key}): {error}")
        return False
    if (found_id, found_segment) != (video_id, segment):
        fault(f"{sample} ({key}) says that it is segment {found_segment} of {found_id}")
        return False
    if builder is not None:
        builder.add(sizes, crc, words)
    return True


def _sizes(index: ShardIndex, row: int) -> tuple[int, int, int]:
    picture, sound, text = index.member_sizes[row].tolist()
    return picture, sound, text


def _lost(index: ShardIndex, video: int, segment: int) -> str:
    """What is gone from a segment of a video on."""
    videos = index.num_videos - video - 1
    rest = int(index.segment_counts()[video]) - segment
    behind = f" and all {videos} videos behind it" if videos else ""
    return f"the last {rest} segments of {index.video_id(video)}{behind} are gone"


def check_alone(stream: TarStream, sound: Sound, fault: Callable[[str], None]) -> Contents:
    """Checks the framing of a tar without its index, which its samples can make again."""
    builder = IndexBuilder(sound)
    video_id, next_segment = "", 0
    try:
        for key, sizes, crc, text in _samples(stream, sound):
            found_id, segment, words = _parse_text(text)
            if segment == 0 and found_id != video_id and next_segment:
                builder.end_video(video_id)
            if segment == 0 and found_id != video_id:
                video_id, next_segment = found_id, 0
            if (found_id, segment) != (video_id, next_segment) or key != sample_key(found_id, segment):
                raise BadInput(f"{key} is segment {segment} of {found_id} at byte {stream.size}, out of its place")
            builder.add(sizes, crc, words)
            next_segment += 1
    except BadInput as error:
        fault(str(error))
        return Contents(None, stream.finish(), stream.size)
    if next_segment:
        builder.end_video(video_id)
    return Contents(builder, stream.finish(), stream.size)


def _samples(stream: TarStream, sound: Sound) -> Iterator[tuple[str, tuple[int, int, int], int, bytes]]:
    """Key, sizes, checksum and JSON of every sample. Raises BadInput where the framing is not that of a shard."""
    suffixes = (PICTURE, SOUND_SUFFIXES[sound], TEXT)
    while True:
        key, crc, sizes, content = "", 0, [], b""
        for suffix in suffixes:
            place = stream.size
            header = stream.read(BLOCK)
            if suffix == PICTURE and header == END[:BLOCK]:
                if header + stream.read(BLOCK) != END or stream.skip(1):
                    raise BadInput(f"its end at byte {place} is damaged, or more follows it")
                return
            own_key, own_suffix, size = _member(header, place)
            if own_suffix != suffix or (key and own_key != key):
                raise BadInput(f"{own_key}.{own_suffix} at byte {place} is not where a shard has it")
            content = stream.read(size)
            rest = stream.read(padding(size))
            if len(content) + len(rest) != size + padding(size) or any(rest):
                raise BadInput(f"{own_key}.{own_suffix} at byte {place} is cut short or its padding is damaged")
            key, crc = own_key, zlib.crc32(rest, zlib.crc32(content, zlib.crc32(header, crc)))
            sizes.append(size)
        yield key, (sizes[0], sizes[1], sizes[2]), crc, content


def _member(header: bytes, place: int) -> tuple[str, str, int]:
    """Key, suffix and size of a member. Raises BadInput for any header that a shard does not have."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        raise BadInput(f"the header at byte {place} is damaged: {error}") from error
    match = _MEMBER.fullmatch(info.name)
    if match is None or not 0 <= info.size <= MAX_SAMPLE or header != member_header(info.name, info.size):
        raise BadInput(
            f"{info.name!r:.80} of {info.size} bytes, whose header is at byte {place}, is no file of a shard"
        )
    return match[1], match[2], info.size


def _parse_text(data: bytes) -> tuple[str, int, str]:
    """The id, the segment and the words, joined by spaces, that a sample's JSON names."""
    try:
        text = json.loads(data)
        words = " ".join(str(word) for word, _, _ in text["words"])
        return str(text["video_id"]), int(text["segment"]), words
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BadInput(f"its JSON cannot be read ({error})") from error
