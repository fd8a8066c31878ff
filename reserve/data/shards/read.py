"""Reads shards: any run of a video's segments in constant time, each sample checked."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from reserve.config import MAX_PLAYBACK_SPEED, DataConfig
from reserve.config.load import build_section
from reserve.data.segment_sound import flac_log_mels
from reserve.data.shards.files import Files, check_not_special, open_files
from reserve.data.shards.index import ShardIndex
from reserve.data.shards.layout import MANIFEST, SETTINGS, Sample, Sound, member_starts, shard_name
from reserve.data.shards.records import MAX_BYTES, Manifest, Settings, ShardEntry, read_manifest, read_settings
from reserve.data.types import MAX_SECONDS, Segments, VideoMetadata, Word
from reserve.errors import BadInput, DamagedSample


class Shard:
    """The videos of a shard by number, in the order of its index. Objects can be pickled.

    Raises BadInput naming the shard where it is gone or its index is damaged, and DamagedSample naming the video too
    where a sample is.
    """

    def __init__(self, files: Files, number: int, data: DataConfig, *, spectrograms: bool = True) -> None:
        """Opens shard `number` of a set; `data` are the settings that it was prepared with. Without `spectrograms`,
        those that would have to be made of FLAC files are left out of its segments."""
        self.name, self._files, self._data = shard_name(number), files, data
        self._spectrograms = spectrograms
        self.where = f"{files.where.rstrip('/')}/{self.name}"
        try:
            self._index = ShardIndex(check_not_special(files.path(f"{self.name}.index")))
        except BadInput as error:
            raise BadInput(f"{self.where}.index: {error}") from error

    def __reduce__(self) -> tuple[Callable[..., Shard], tuple[Files, int, DataConfig]]:
        number = int(self.name.rpartition("-")[2])
        return partial(Shard, spectrograms=self._spectrograms), (self._files, number, self._data)

    @property
    def sound(self) -> Sound:
        """What the sound of its segments is stored as."""
        return self._index.sound

    def segment_counts(self) -> np.ndarray:
        """Segments of each video, int64 [videos]."""
        return self._index.segment_counts()

    def video_id(self, video: int) -> str:
        """The id of a video."""
        return self._index.video_id(video)

    def texts(self, video: int) -> list[str]:
        """The words of each segment of a video, joined by spaces."""
        with self.naming(video):
            return self._index.texts(video)

    def load(self, video: int, start: int = 0, stop: int | None = None) -> Segments:
        """Segments `start` to `stop` - 1 of a video, in one read. Raises IndexError if they are out of bounds."""
        count = int(self.segment_counts()[video])
        stop = count if stop is None else stop
        if not 0 <= start < stop <= count:
            raise IndexError(f"segments {start} to {stop} are out of bounds: the video has {count}")
        with self.naming(video):
            samples = self._samples(video, start, stop)
            texts = [_Text.parse(sample.text) for sample in samples]
            speeds = np.array([text.playback_speed for text in texts], np.int32)
            sound = [sample.sound for sample in samples]
            return Segments(
                video_id=self.video_id(video),
                start=np.array([text.start for text in texts], np.float64),
                playback_speed=speeds,
                frames=[sample.picture for sample in samples],
                log_mel=self._log_mels(sound, speeds),
                words=[text.words for text in texts],
                metadata=texts[0].metadata,
                sound=sound if self.sound == "flac" else [],
            )

    def sample(self, video: int, segment: int) -> Sample:
        """The three files of a segment as they are stored."""
        with self.naming(video):
            return self._samples(video, segment, segment + 1)[0]

    @contextmanager
    def naming(self, video: int) -> Iterator[None]:
        """Makes every BadInput raised inside a DamagedSample that names the shard and the video."""
        try:
            yield
        except _Unreadable as error:
            raise error.reason from error
        except BadInput as error:
            raise DamagedSample(f"{self.where}.tar: {self.video_id(video)}: {error}") from error

    def _samples(self, video: int, start: int, stop: int) -> list[Sample]:
        first = int(self._index.video_first[video])
        places = self._index.sample_start[first + start : first + stop + 1].astype(np.int64).tolist()
        try:
            return self._read(places, first, start)
        except BadInput:
            # The file may be whole: a cache or a transfer can be at fault.
            return self._read(places, first, start, afresh=True)

    def _read(self, places: Sequence[int], first: int, start: int, *, afresh: bool = False) -> list[Sample]:
        """Samples that lie between `places` of the tar, from segment `start` of the video on whose row is `first`."""
        begin = places[0]
        try:
            data = self._files.read_range(f"{self.name}.tar", begin, places[-1], afresh=afresh)
        except BadInput as error:  # the file is gone, not a sample in it
            raise _Unreadable(error) from error
        return [
            self._checked(data[a - begin : b - begin], first + start + place, start + place)
            for place, (a, b) in enumerate(pairwise(places))
        ]

    def _checked(self, data: bytes, row: int, segment: int) -> Sample:
        """The files of the sample in `row` of the index, once their bytes have the checksum that the index names."""
        if zlib.crc32(data) != int(self._index.sample_crc[row]):
            raise BadInput(f"segment {segment} is damaged: its bytes do not have the checksum of the index")
        sizes = self._index.member_sizes[row].tolist()
        parts = [data[start : start + size] for start, size in zip(member_starts(sizes), sizes, strict=True)]
        return Sample(*parts)

    def _log_mels(self, sound: Sequence[bytes], speeds: np.ndarray) -> np.ndarray:
        if self.sound == "flac" and not self._spectrograms:
            return np.zeros((len(sound), 0, self._data.num_mels), np.float16)
        if self.sound == "flac":
            return flac_log_mels(sound, speeds.tolist(), self._data)
        return np.stack([_spectrogram(each, self._data) for each in sound])


class _Unreadable(Exception):
    """Carries a file's error past the naming of a sample."""

    def __init__(self, reason: BadInput) -> None:
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Text:
    """What the JSON of a sample says."""

    start: float
    playback_speed: int
    words: list[Word]
    metadata: VideoMetadata

    @classmethod
    def parse(cls, data: bytes) -> _Text:
        try:
            text = json.loads(data)
            words = [Word(str(word), float(start), float(end)) for word, start, end in text["words"]]
            about = text["metadata"]
            metadata = VideoMetadata(str(about["title"]), str(about["description"]), tuple(map(str, about["tags"])))
            parsed = cls(float(text["start"]), int(text["playback_speed"]), words, metadata)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise BadInput(f"its JSON cannot be read ({error})") from error
        times = [parsed.start, *(time for word in words for time in (word.start, word.end))]
        if not all(abs(time) <= MAX_SECONDS for time in times) or not 1 <= parsed.playback_speed <= MAX_PLAYBACK_SPEED:
            raise BadInput("its JSON has times or a playback speed out of range")
        return parsed


def _spectrogram(data: bytes, config: DataConfig) -> np.ndarray:
    wanted = (config.spec_size, config.num_mels)
    usual = _usual_header(wanted)
    start = len(usual) if data.startswith(usual) else _parse_header(data, wanted)
    values = data[start:]
    if len(values) != 2 * math.prod(wanted):
        raise BadInput(f"its spectrogram has {len(values)} bytes, not {2 * math.prod(wanted)}")
    array = np.frombuffer(values, np.float16).reshape(wanted)
    if not np.isfinite(array).all():
        raise BadInput("its spectrogram is not finite")
    return array


@cache
def _usual_header(shape: tuple[int, int]) -> bytes:
    """The header that NumPy writes for float16 values of this shape. Parsing one takes longer than reading a sample."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros(shape, np.float16), version=(1, 0), allow_pickle=False)
    return file.getvalue()[: -2 * math.prod(shape)]


def _parse_header(data: bytes, wanted: tuple[int, int]) -> int:
    """Checks a header that another program may have written. Returns where the values begin."""
    file = io.BytesIO(data)
    try:
        # Not read_array, which allocates whatever a header asks for.
        version = np.lib.format.read_magic(file)
        shape, columns_first, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=1024)
    except Exception as error:  # NumPy parses a header as Python, and raises what Python's parser does
        raise BadInput(f"its spectrogram cannot be read ({error})") from error
    if (version, columns_first) != ((1, 0), False) or dtype != np.float16 or shape != wanted:
        raise BadInput(f"its spectrogram is {dtype!s:.80} {list(shape)!r:.80}, not float16 {list(wanted)}")
    return file.tell()


@dataclass(frozen=True, slots=True)
class ShardPart:
    """A shard that has not been opened."""

    files: Files
    number: int
    num_segments: int
    data: DataConfig
    spectrograms: bool = True

    @property
    def name(self) -> str:
        """The shard's place, for messages."""
        return f"{self.files.where.rstrip('/')}/{shard_name(self.number)}"

    def open(self) -> Shard:
        """Reads the shard's index."""
        return Shard(self.files, self.number, self.data, spectrograms=self.spectrograms)


@dataclass(frozen=True)
class ShardSet:
    """A finished set of shards, from its manifest."""

    files: Files
    manifest: Manifest
    settings: Settings
    data: DataConfig

    @classmethod
    def open(cls, files: Files | str | Path) -> ShardSet:
        """Reads the manifest and the settings of a folder. Raises BadInput if it is not a finished set."""
        if isinstance(files, str | Path):
            files = open_files(files)
        try:
            manifest = read_manifest(read_file(files, MANIFEST))
            settings_bytes = read_file(files, SETTINGS)
            if hashlib.sha256(settings_bytes).hexdigest() != manifest.settings.sha256:
                raise BadInput(f"{SETTINGS} is damaged or of another set: its SHA-256 is not that in {MANIFEST}")
            settings = read_settings(settings_bytes)
            data = build_section(DataConfig, settings.data, f"{SETTINGS}: data.")
        except (BadInput, ValueError) as error:
            raise BadInput(f"{files.where}: {error}") from error
        known = (file for entry in manifest.shards for file in (entry.record, entry.tar, entry.index) if file)
        return cls(files.pinned(known), manifest, settings, data)

    @property
    def parts(self) -> list[ShardPart]:
        """The shards that hold segments."""
        return [self._part(entry) for entry in self.manifest.shards if entry.segments]

    def _part(self, entry: ShardEntry) -> ShardPart:
        return ShardPart(self.files, entry.number, entry.segments, self.data)


def read_file(files: Files, name: str) -> bytes:
    """A small file of a set. Raises BadInput if it is not there or cannot be read."""
    try:
        path = check_not_special(files.path(name))
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BadInput(f"{name} has {size} bytes; at most {MAX_BYTES} are read")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadInput(_absent(files, name)) from error
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror or error}") from error


def _absent(files: Files, name: str) -> str:
    if name == MANIFEST and files.path(SETTINGS).is_file():
        return "its shards are not all prepared: run `reserve prepare` to its end, for every fold"
    if name in (MANIFEST, SETTINGS):
        return f"not a set of shards: it has no {name}"
    return f"{files.path(name)}: there is no such file"
