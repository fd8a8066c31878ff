"""The files of an index: one for each video file or shard, with the vectors of its moments.

A safetensors file with the arrays of `Moments` and, in its metadata, a `PartHeader` and a CRC-32 of the arrays.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reserve.errors import BadInput
from reserve.fs import check_regular_file, replacing

FORMAT = "reserve-moments-1"
SUFFIX = ".safetensors"
_ENTRY = "moments"
REMEDY = "delete it, and the next build encodes its videos again"
_ARRAYS = {
    "words": (np.float16, 2),
    "sounds": (np.float16, 2),
    "start": (np.float64, 1),
    "end": (np.float64, 1),
    "video": (np.int32, 1),
    "sound_moment": (np.int32, 1),
}
_NAMES: dict[Any, str] = {np.float16: "F16", np.float64: "F64", np.int32: "I32"}


@dataclass(frozen=True)
class Moments:
    """The moments of one or more videos.

    `start`, `end` float64 [moments], seconds; `video` int32 [moments], the number of its video; `words` float16
    [moments, hidden]; `sounds` float16 [sounds, hidden], of the moments `sound_moment` int32 [sounds].
    """

    start: np.ndarray
    end: np.ndarray
    video: np.ndarray
    words: np.ndarray
    sounds: np.ndarray
    sound_moment: np.ndarray


@dataclass(frozen=True)
class PartHeader:
    """What a part says of itself.

    `model` is the identity of the one that made it; `key` says what was encoded; `place` is the set of shards, empty
    for a file. `videos` are in the part, `skipped` are the reasons against others. `moments` and `sounds` count its
    vectors.
    """

    model: str
    key: str
    place: str
    videos: tuple[str, ...]
    skipped: tuple[str, ...]
    moments: int = 0
    sounds: int = 0


def write_part(path: Path, header: PartHeader, moments: Moments) -> None:
    """Writes a part, counted anew; it appears whole or not at all."""
    import safetensors.numpy

    arrays = {name: np.ascontiguousarray(getattr(moments, name), kind) for name, (kind, _) in _ARRAYS.items()}
    counted = replace(header, moments=len(moments.words), sounds=len(moments.sounds))
    # JSON escapes what file names may hold and UTF-8 does not. One entry: safetensors writes several in any order.
    about = json.dumps({"format": FORMAT, "crc32": _checksum(arrays), **asdict(counted)})
    with replacing(path) as temporary:
        safetensors.numpy.save_file(arrays, temporary, metadata={_ENTRY: about})


def read_header(path: Path) -> PartHeader:
    """A part's header. Raises BadInput naming the file if it is damaged."""
    with _opened(path) as file:
        return _header(file)


def read_part(path: Path) -> tuple[PartHeader, Moments]:
    """A part with its vectors, checked. Raises BadInput naming the file if it is damaged."""
    with _opened(path) as file:
        header = _header(file)
        arrays = {name: file.get_tensor(name) for name in _ARRAYS}
        if _checksum(arrays) != _about(file).get("crc32"):
            raise BadInput("its bytes do not have the checksum of its header")
        _check_numbers("video", arrays["video"], len(header.videos))
        _check_numbers("sound_moment", arrays["sound_moment"], header.moments)
        return header, Moments(**arrays)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a part. Whatever is wrong with it raises BadInput naming the file and the remedy."""
    from safetensors import SafetensorError, safe_open

    try:
        check_regular_file(path)
        with safe_open(path, framework="numpy") as file:
            yield file
    except (BadInput, SafetensorError, OSError) as error:
        raise BadInput(f"{path} is damaged or no part of an index: {error}; {REMEDY}") from error


def _header(file: Any) -> PartHeader:
    about = _about(file)
    try:
        videos, skipped = (tuple(map(str, about[name])) for name in ("videos", "skipped"))
        model, key, place = (str(about[name]) for name in ("model", "key", "place"))
        header = PartHeader(model, key, place, videos, skipped, int(about["moments"]), int(about["sounds"]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"bad or missing header field: {error!r:.200}") from error
    for name, (kind, axes) in _ARRAYS.items():
        if name not in file.keys():  # noqa: SIM118 (a handle, not a dict)
            raise BadInput(f"it has no {name}")
        array = file.get_slice(name)
        shape, dtype = array.get_shape(), array.get_dtype()
        count = header.sounds if name in ("sounds", "sound_moment") else header.moments
        if dtype != _NAMES[kind] or len(shape) != axes or shape[0] != count:
            raise BadInput(f"{name} must be {_NAMES[kind]} of {count} rows; got {dtype} of shape {shape}")
    return header


def _about(file: Any) -> dict[str, Any]:
    """The metadata of a part. Raises BadInput for that of another file."""
    try:
        about = json.loads((file.metadata() or {})[_ENTRY])
    except (KeyError, ValueError, RecursionError) as error:
        raise BadInput(f"it has no metadata of a part: {error!r:.200}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise BadInput(f"its metadata must be a map of the format {FORMAT!r}; got {about!r:.80}")
    return about


def _check_numbers(name: str, numbers: np.ndarray, most: int) -> None:
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < most:
        raise BadInput(f"{name} must be below {most}; got {numbers.min()} to {numbers.max()}")


def _checksum(arrays: dict[str, np.ndarray]) -> int:
    value = 0
    for name in _ARRAYS:
        value = zlib.crc32(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data, value)
    return value
