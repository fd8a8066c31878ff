"""Segments of one video on disk: one safetensors file, written atomically and validated when it is read.

Tensors: `start` float64 [n], `playback_speed` int32 [n], `log_mel` float16 [n, frames, mels], `frame_bytes` uint8 [*]
(the JPEG files one after another), `frame_offsets` int64 [n + 1], `text` uint8 [*] (JSON: video_id, metadata, words);
where the sound itself was kept, `sound_bytes` uint8 [*] and `sound_offsets` int64 [n + 1], a FLAC file a segment.
The header holds the name of the format, the counts, the length of the video, the key of the inputs, the transcript used
and those passed over, the decoder, and the warnings of the preparation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from reserve.config import MAX_PLAYBACK_SPEED
from reserve.data.types import MAX_SECONDS, Choice, DecodedBy, PassedOver, Segments, VideoMetadata, Word
from reserve.errors import BadInput
from reserve.fs import replacing

FORMAT = "reserve-segments-1"
SUFFIX = ".safetensors"
# Name -> dtype, as safetensors spells it, and number of axes.
_LAYOUT = {
    "start": ("F64", 1),
    "playback_speed": ("I32", 1),
    "log_mel": ("F16", 3),
    "frame_bytes": ("U8", 1),
    "frame_offsets": ("I64", 1),
    "text": ("U8", 1),
}
_SOUND_LAYOUT = {"sound_bytes": ("U8", 1), "sound_offsets": ("I64", 1)}


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """The header of a store file: enough to plan examples without reading the rest."""

    path: Path
    key: str
    num_segments: int
    num_words: int
    warnings: tuple[str, ...]
    choice: Choice = field(default_factory=Choice)
    seconds: float = 0.0
    """Length of the video; 0 in the stores of earlier releases."""
    decoded_by: DecodedBy = field(default_factory=DecodedBy)


def save_segments(
    segments: Segments,
    path: str | Path,
    *,
    key: str = "",
    warnings: Sequence[str] = (),
    choice: Choice | None = None,
    seconds: float = 0.0,
    decoded_by: DecodedBy | None = None,
) -> None:
    """Writes `segments` atomically: a crash leaves the old file or none.

    `key` identifies the inputs they were made from; `warnings` and `choice` are those of the preparation, `seconds` is
    the length of the video, `decoded_by` tells where its pictures come from.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    text: dict[str, Any] = {
        "video_id": segments.video_id,
        "metadata": asdict(segments.metadata),
        "words": [[[word.text, word.start, word.end] for word in words] for words in segments.words],
    }
    tensors: dict[str, np.ndarray] = {
        "start": segments.start.astype(np.float64),
        "playback_speed": segments.playback_speed.astype(np.int32),
        "log_mel": segments.log_mel.astype(np.float16, copy=False),
        **_files("frame", segments.frames),
        "text": np.frombuffer(json.dumps(text).encode("ascii"), dtype=np.uint8),
    }
    if segments.sound:
        tensors |= _files("sound", segments.sound)
    header = {
        "format": FORMAT,
        "key": key,
        "num_segments": str(len(segments)),
        "num_words": str(sum(map(len, segments.words))),
        "warnings": json.dumps(list(warnings)),
        "choice": json.dumps(asdict(choice or Choice())),
        "seconds": repr(float(seconds)),
        "decoder": json.dumps(asdict(decoded_by or DecodedBy())),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def _files(name: str, files: Sequence[bytes]) -> dict[str, np.ndarray]:
    return {
        f"{name}_bytes": np.frombuffer(b"".join(files), dtype=np.uint8),
        f"{name}_offsets": np.cumsum([0, *map(len, files)], dtype=np.int64),
    }


def read_summary(path: str | Path) -> StoreSummary:
    """Reads the header of a store file. Raises BadInput if it is not one."""
    with _opened(path) as file:
        return _summary(file, Path(path))


def load_segments(path: str | Path, start: int = 0, stop: int | None = None) -> Segments:
    """Reads segments `start` to `stop` - 1 of a store file, and no other frames and spectrograms.

    Raises BadInput if the file is not a complete and consistent store, IndexError if the range is out of bounds.
    """
    with naming_store(path), _opened(path) as file:
        count = _check_layout(file, _summary(file, Path(path)).num_segments)
        stop = count if stop is None else stop
        if not 0 <= start <= stop <= count:
            raise IndexError(f"segments {start} to {stop} are out of bounds: the video has {count}")
        starts, speeds, log_mel = (file.get_slice(name)[start:stop] for name in ("start", "playback_speed", "log_mel"))
        if not (np.isin(speeds, range(1, MAX_PLAYBACK_SPEED + 1)).all() and np.isfinite(starts).all()):
            raise BadInput("not a store of segments: times or playback speeds out of range")
        if not np.isfinite(log_mel).all():
            raise BadInput("not a store of segments: spectrograms that are not finite")
        video_id, metadata, words = _decode_text(file.get_tensor("text"), count)
        return Segments(
            video_id=video_id,
            start=starts,
            playback_speed=speeds,
            frames=_read_files(file, "frame", start, stop),
            log_mel=log_mel,
            words=words[start:stop],
            metadata=metadata,
            sound=_read_files(file, "sound", start, stop) if _SOUND_LAYOUT.keys() <= set(file.keys()) else [],
        )


def read_video_id(path: str | Path) -> str:
    """The id of a store file's video. Raises BadInput if it is not a store."""
    with _opened(path) as file:
        count = _check_layout(file, _summary(file, Path(path)).num_segments)
        return _decode_text(file.get_tensor("text"), count)[0]


def load_texts(path: str | Path) -> list[str]:
    """The words of each segment of a store file, joined by spaces. Raises BadInput as load_segments does."""
    with naming_store(path), _opened(path) as file:
        count = _check_layout(file, _summary(file, Path(path)).num_segments)
        _, _, words = _decode_text(file.get_tensor("text"), count)
    return [" ".join(word.text for word in part) for part in words]


@contextmanager
def naming_store(path: str | Path) -> Iterator[None]:
    """Adds the store file at fault and the remedy to every BadInput raised inside."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{path}: {error}; delete it, and the next run or --resume prepares its video again") from error


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Opens a safetensors file. Whatever fails raises BadInput."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise BadInput(f"not a store of segments: {error}") from error


def _summary(file: Any, path: Path) -> StoreSummary:
    header = file.metadata() or {}
    if header.get("format") != FORMAT:
        raise BadInput(f"not a store of segments: its format is {header.get('format')!r}, not {FORMAT!r}")
    try:
        segments, words = int(header["num_segments"]), int(header["num_words"])
        warnings = tuple(map(str, json.loads(header["warnings"])))
        # Earlier releases recorded neither the choice nor the length nor the decoder.
        made = json.loads(header.get("choice", "{}"))
        others = tuple(PassedOver(str(other["name"]), str(other["reason"])) for other in made.get("passed_over", []))
        choice = Choice(str(made.get("transcript", "")), str(made.get("audio", "")), others)
        seconds = float(header.get("seconds", 0))
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds {seconds}")
        names = json.loads(header.get("decoder", "{}"))
        decoded_by = DecodedBy(**{name: str(names[name]) for name in ("decoder", "reason", "asked") if name in names})
        return StoreSummary(path, header["key"], segments, words, warnings, choice, seconds, decoded_by)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"not a store of segments: bad or missing header field: {error}") from error


def _check_layout(file: Any, count: int) -> int:
    """Checks that names, dtypes and shapes fit each other. Returns the number of segments."""
    names = set(file.keys())
    layout = _LAYOUT | (_SOUND_LAYOUT if names & _SOUND_LAYOUT.keys() else {})
    if names != layout.keys():
        raise BadInput(f"not a store of segments: it holds {sorted(names)}, not {sorted(layout)}")
    lengths = {}
    for name, (dtype, axes) in layout.items():
        part = file.get_slice(name)
        shape = part.get_shape()
        if part.get_dtype() != dtype or len(shape) != axes:
            raise BadInput(f"not a store of segments: {name} is {part.get_dtype()} of shape {shape}")
        lengths[name] = shape[0]
    if any(lengths[name] != count for name in ("start", "playback_speed", "log_mel")):
        raise BadInput(f"not a store of segments: its header counts {count} segments, its tensors have {lengths}")
    for name, length in lengths.items():
        if name.endswith("_offsets") and length != count + 1:
            raise BadInput(f"not a store of segments: {length} {name.replace('_', ' ')} for {count} segments")
    return count


def _read_files(file: Any, name: str, start: int, stop: int) -> list[bytes]:
    offsets = file.get_tensor(f"{name}_offsets")
    size = file.get_slice(f"{name}_bytes").get_shape()[0]
    if offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) <= 0).any():
        raise BadInput(f"not a store of segments: its {name} offsets do not divide its {name}s")
    files = file.get_slice(f"{name}_bytes")[int(offsets[start]) : int(offsets[stop])]
    bounds = offsets[start : stop + 1] - offsets[start]
    return [files[a:b].tobytes() for a, b in pairwise(bounds)]


def _decode_text(data: np.ndarray, count: int) -> tuple[str, VideoMetadata, list[list[Word]]]:
    try:
        text = json.loads(data.tobytes())
        metadata = text["metadata"]
        words = [[Word(str(word), float(start), float(end)) for word, start, end in part] for part in text["words"]]
        decoded = VideoMetadata(str(metadata["title"]), str(metadata["description"]), tuple(map(str, metadata["tags"])))
        video_id = str(text["video_id"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BadInput(f"not a store of segments: its text cannot be read ({error})") from error
    if not all(abs(word.start) <= MAX_SECONDS >= abs(word.end) for part in words for word in part):
        raise BadInput("not a store of segments: times of words that are out of range")
    if len(words) != count:
        raise BadInput(f"not a store of segments: words of {len(words)} segments instead of {count}")
    return video_id, decoded, words
