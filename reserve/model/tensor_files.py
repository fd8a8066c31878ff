"""Writes and reads tensors in safetensors files one at a time: none needs the memory of a whole file."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from reserve.errors import BadInput, CheckpointError
from reserve.fs import check_regular_file

DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The dtypes that a checkpoint may hold, by their names in safetensors, in the order of its library's files."""
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class StoredFile:
    """The size of a file in bytes and its SHA-256, in hexadecimal."""

    size: int
    sha256: str


def write_tensors(
    path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]], read: Callable[[str], torch.Tensor]
) -> StoredFile:
    """Writes a safetensors file and flushes it to the disk. Returns its size and checksum.

    `shapes` holds the dtype's name and the shape of each tensor, and `read(name)` returns its values when they are
    written. The checksum is that of the bytes written, not of what the disk holds then. Writing and hashing release
    Python's lock, so that other threads go on. Raises OSError naming the file.
    """
    # The order and the padding of the safetensors library, which keep every tensor aligned.
    order = {dtype: place for place, dtype in enumerate(DTYPES)}
    names = sorted(shapes, key=lambda name: (order[shapes[name][0]], name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        dtype, shape = shapes[name]
        start, end = end, end + torch.Size(shape).numel() * DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    try:
        with path.open("wb", buffering=0) as file:

            def write(content: Any) -> None:
                digest.update(content)
                left = memoryview(content)
                while left:
                    left = left[file.write(left) :]

            write(struct.pack("<Q", len(text)) + text)
            for name in names:
                value = read(name).detach().cpu().contiguous()
                dtype, shape = shapes[name]
                if (DTYPE_NAMES.get(value.dtype), tuple(value.shape)) != (dtype, tuple(shape)):
                    raise ValueError(f"{name} is {value.dtype} of {tuple(value.shape)}, not {dtype} of {tuple(shape)}")
                write(value.reshape(-1).view(torch.uint8).numpy())
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
    return StoredFile(8 + len(text) + end, digest.hexdigest())


class TensorFiles:
    """The safetensors files of a folder, opened when they are first read and closed at the end of a `with` block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(
        self, file: str, key: str, dtype: str, shape: tuple[int, ...], part: tuple[slice, ...] = ()
    ) -> torch.Tensor:
        """A tensor of a file, or a part of it.

        Raises CheckpointError naming the file, also where the tensor is not of `dtype` (its name) and `shape`.
        """
        safetensors = safetensors_library()
        path = self._folder / file
        try:
            if file not in self._open:
                check_regular_file(path)
                self._open[file] = self._stack.enter_context(safetensors.safe_open(path, framework="pt"))
            array = self._open[file].get_slice(key)
            found = array.get_dtype(), tuple(array.get_shape())
            if found != (dtype, shape):
                raise BadInput(f"{key:.120} is {found[0]} of shape {found[1]}, not {dtype} of shape {shape}")
            # A scalar has no slices.
            return array[part] if part else self._open[file].get_tensor(key)
        except (BadInput, OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{file}: {error}") from error


def safetensors_library() -> Any:
    """The module safetensors with safetensors.torch. Raises ImportError naming the extra that installs it."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "pretrained folders need safetensors: pip install 'merlot-reserve[train]'", name="safetensors"
        ) from error
    return safetensors
