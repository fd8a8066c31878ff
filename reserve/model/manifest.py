"""checkpoint.json: the files of a checkpoint with their checksums, and where each tensor is in them."""

from __future__ import annotations

import errno
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reserve.errors import BadInput, CheckpointError, DamagedCheckpoint, EnvironmentFailure
from reserve.fs import check_regular_file
from reserve.model.tensor_files import DTYPES, StoredFile

CHECKPOINT = "checkpoint.json"
MODEL, OPTIMIZER = "model", "optimizer"
"""The parts of a checkpoint."""

_FORMAT = 1
_MAX_BYTES = 1 << 30
_BLOCK = 1 << 22
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EIO)


@dataclass(frozen=True)
class Chunk:
    """A part of a tensor: the array `key` of `file`, which starts at `offsets` in the whole tensor."""

    file: str
    key: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint. `dtype` is its name in safetensors; the chunks cover the tensor without overlaps."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Manifest:
    """The content of checkpoint.json.

    `progress` says how far the run was, `world_size` how many ranks wrote, and `mean_loss` is the mean training loss
    since the checkpoint before, None if it is unknown or not finite. `tensors` holds those of each part by name.
    """

    progress: Mapping[str, Any]
    world_size: int
    mean_loss: float | None
    files: Mapping[str, StoredFile]
    tensors: Mapping[str, Mapping[str, StoredTensor]]

    def files_of(self, part: str) -> list[str]:
        """The files that hold the tensors of a part."""
        return sorted({chunk.file for tensor in self.tensors[part].values() for chunk in tensor.chunks})


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of checkpoint.json, which end with a checksum of the others."""
    return _encode({"format": _FORMAT, **asdict(manifest)})


def _encode(values: dict[str, Any]) -> bytes:
    body = json.dumps(values, allow_nan=False, separators=(",", ":")).encode()
    return body[:-1] + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def has_manifest(folder: Path) -> bool:
    """Whether a folder has a checkpoint.json, that of a run's checkpoint."""
    return (folder / CHECKPOINT).exists()


def read_small_file(path: Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes.

    Raises CheckpointError naming it, DamagedCheckpoint where it is missing, empty or lost by its disk.
    """
    try:
        check_regular_file(path)
        with path.open("rb") as file:
            content = file.read(most + 1)
    except BadInput as error:
        raise _missing(error)(f"{path}: {error}") from error
    except OSError as error:
        raise _unreadable(error, CheckpointError)(f"cannot read {path}: {error.strerror}") from error
    if len(content) > most:
        raise CheckpointError(f"{path} has more than {most} bytes")
    return content


def read_manifest(folder: Path) -> Manifest:
    """Reads checkpoint.json. Raises DamagedCheckpoint naming it unless every byte is as it was written, CheckpointError
    where another version wrote it or it cannot be read now."""
    path = folder / CHECKPOINT
    content = read_small_file(path, _MAX_BYTES)
    try:
        values = json.loads(content)
        written = values.pop("sha256")
        # Not only the values: a changed byte can leave them as they are.
        if _encode(values) != content:
            raise DamagedCheckpoint(f"{path} is damaged: its SHA-256 is not {written!r:.80}")
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path} is damaged: {error}") from error
    if values.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} has the format {values.get('format')!r:.80}; this version reads {_FORMAT}: update the package"
        )
    try:
        return _parse(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a checkpoint's: {error!r:.200}") from error


def check_files(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Raises DamagedCheckpoint naming the first of the files `names` that is not what checkpoint.json says.

    Raises EnvironmentFailure where a file cannot be read for a reason that says nothing about it.
    """
    for name in names:
        if name not in manifest.files:
            raise CheckpointError(f"{folder / CHECKPOINT} does not list {name}")
        path, expected = folder / name, manifest.files[name]
        digest = hashlib.sha256()
        try:
            size = check_regular_file(path).st_size
            if size != expected.size:
                raise DamagedCheckpoint(f"{path} is damaged: it has {size} bytes, not {expected.size}")
            with path.open("rb", buffering=0) as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except BadInput as error:
            raise _missing(error)(f"{path} is missing or damaged: {error}") from error
        except OSError as error:
            raise _unreadable(error, EnvironmentFailure)(f"cannot read {path}: {error.strerror}") from error
        if digest.hexdigest() != expected.sha256:
            raise DamagedCheckpoint(f"{path} is damaged: its SHA-256 is not the one in {CHECKPOINT}")


def _missing(error: BadInput) -> type[CheckpointError]:
    """The kind of error of a file that is not there as it should be, or that cannot be looked at."""
    cause = error.__cause__
    return CheckpointError if getattr(cause, "errno", errno.ENOENT) not in _GONE else DamagedCheckpoint


def _unreadable(error: OSError, otherwise: type[Exception]) -> type[Exception]:
    """The kind of error of a file that cannot be read: a disk that does not give it back has lost it. Anything else,
    such as permissions or a lost mount, says nothing about the file."""
    return DamagedCheckpoint if error.errno == errno.EIO else otherwise


def _parse(values: dict[str, Any]) -> Manifest:
    files = {name: StoredFile(**entry) for name, entry in values["files"].items()}
    for name, file in files.items():
        if Path(name).name != name or name in ("", "..") or "\\" in name:
            raise ValueError(f"{name!r} is not the name of a file")
        if type(file.size) is not int or not isinstance(file.sha256, str):
            raise TypeError(f"files.{name} must have a size and a checksum")
    tensors = {
        part: {name: _parse_tensor(name, entry, files) for name, entry in values["tensors"][part].items()}
        for part in (MODEL, OPTIMIZER)
    }
    _check_sizes(files, tensors)
    loss = values["mean_loss"]
    if type(values["world_size"]) is not int:
        raise TypeError(f"world_size must be a whole number; got {values['world_size']!r:.80}")
    if loss is not None and type(loss) not in (int, float):
        raise TypeError(f"mean_loss must be a number; got {loss!r}")
    if not isinstance(values["progress"], dict):
        raise TypeError("progress must be a map")
    return Manifest(values["progress"], values["world_size"], loss, files, tensors)


def _parse_tensor(name: str, entry: dict[str, Any], files: Mapping[str, StoredFile]) -> StoredTensor:
    chunks = tuple(
        Chunk(chunk["file"], chunk["key"], _whole_numbers(chunk["offsets"]), _whole_numbers(chunk["sizes"]))
        for chunk in entry["chunks"]
    )
    tensor = StoredTensor(entry["dtype"], _whole_numbers(entry["shape"]), chunks)
    if tensor.dtype not in DTYPES:
        raise ValueError(f"{name} has the dtype {tensor.dtype}")
    if not all(chunk.file in files and isinstance(chunk.key, str) for chunk in chunks):
        raise ValueError(f"{name} is in a file that is not listed")
    if not _covers([(chunk.offsets, chunk.sizes) for chunk in chunks], tensor.shape):
        raise ValueError(f"the chunks of {name} do not make up its shape {tensor.shape}")
    return tensor


def _check_sizes(files: Mapping[str, StoredFile], tensors: Mapping[str, Mapping[str, StoredTensor]]) -> None:
    """Raises ValueError where a file is too small for its chunks: memory is allocated for what they say."""
    needed: dict[str, int] = defaultdict(int)
    for tensor in (tensor for own in tensors.values() for tensor in own.values()):
        for chunk in tensor.chunks:
            needed[chunk.file] += math.prod(chunk.sizes) * DTYPES[tensor.dtype].itemsize
    for name, size in needed.items():
        if size > files[name].size:
            raise ValueError(f"{name} has {files[name].size} bytes; its tensors need {size}")


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise TypeError(f"{values!r:.80} must be whole numbers")
    return tuple(values)


def _covers(boxes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], shape: tuple[int, ...]) -> bool:
    """Whether boxes (offsets, sizes), cut along one dimension after another, fill `shape` without overlaps."""
    if any(len(part) != len(shape) for box in boxes for part in box):
        return False
    if not shape:
        return len(boxes) == 1
    if not math.prod(shape):
        return all(math.prod(sizes) == 0 for _, sizes in boxes)
    slabs = defaultdict(list)
    for offsets, sizes in boxes:
        slabs[offsets[0], sizes[0]].append((offsets[1:], sizes[1:]))
    end = 0
    for offset, size in sorted(slabs):
        if offset != end or not size:
            return False
        end += size
    return end == shape[0] and all(_covers(slab, shape[1:]) for slab in slabs.values())
