"""Weights in one file or in several, read through checkpoint.json where a folder has one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reserve.errors import BadInput, CheckpointError
from reserve.fs import check_regular_file
from reserve.model.manifest import CHECKPOINT, MODEL, StoredTensor, check_files, has_manifest, read_manifest
from reserve.model.tensor_files import DTYPES, TensorFiles, safetensors_library

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SHARDS = "model-*-of-*.safetensors"
"""The files of weights that several ranks wrote, as a pattern."""


def holds_weights(folder: Path) -> bool:
    """Whether a folder holds the weights of a model, in one file or in shards."""
    return (folder / WEIGHTS).exists() or has_manifest(folder) or next(folder.glob(SHARDS), None) is not None


@contextmanager
def open_weights(folder: Path) -> Iterator[Any]:
    """The weights of a folder, with `keys`, `get_slice` and `get_tensor` as an opened safetensors file.

    Files that checkpoint.json lists are verified first. Raises CheckpointError naming the file, also where the block
    raises one or SafetensorError.
    """
    path = folder / WEIGHTS
    if has_manifest(folder):
        manifest = read_manifest(folder)
        names = manifest.files_of(MODEL)
        check_files(folder, manifest, names)
        if names != [WEIGHTS]:
            try:
                with TensorFiles(folder) as files:
                    yield _Shards(files, manifest.tensors[MODEL])
            except CheckpointError as error:
                raise CheckpointError(f"{folder}: {error}") from error
            return
    elif not path.exists() and next(folder.glob(SHARDS), None):
        raise CheckpointError(f"{folder} holds shards of weights but no {CHECKPOINT}, which says how they fit together")
    safetensors = safetensors_library()
    with ExitStack() as stack:
        try:
            check_regular_file(path)
            weights = stack.enter_context(safetensors.safe_open(path, framework="pt"))
        except BadInput as error:
            raise CheckpointError(f"{path}: {error}") from error
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
        try:
            yield weights
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{path} is not a safetensors file: {error}") from error


def check_config(folder: Path) -> None:
    """Verifies config.json if the folder has a checkpoint.json. Raises CheckpointError naming the file."""
    if has_manifest(folder):
        check_files(folder, read_manifest(folder), [CONFIG])


@dataclass(frozen=True)
class _Slice:
    """What is known of a tensor without reading it."""

    tensor: StoredTensor

    def get_dtype(self) -> str:
        return self.tensor.dtype

    def get_shape(self) -> list[int]:
        return list(self.tensor.shape)


@dataclass(frozen=True)
class _Shards:
    """Shards as whole tensors, with the interface of an opened safetensors file."""

    files: TensorFiles
    tensors: Mapping[str, StoredTensor]

    def keys(self) -> list[str]:
        return list(self.tensors)

    def get_slice(self, name: str) -> _Slice:
        return _Slice(self.tensors[name])

    def get_tensor(self, name: str) -> torch.Tensor:
        return whole_tensor(self.files, self.tensors[name])


def whole_tensor(files: TensorFiles, tensor: StoredTensor) -> torch.Tensor:
    """The chunks of a stored tensor, put together on the CPU. Raises CheckpointError naming a chunk that is not as
    checkpoint.json says."""
    whole = torch.empty(tensor.shape, dtype=DTYPES[tensor.dtype], device="cpu")
    for chunk in tensor.chunks:
        part = files.read(chunk.file, chunk.key, tensor.dtype, chunk.sizes)
        place = tuple(slice(start, start + size) for start, size in zip(chunk.offsets, chunk.sizes, strict=True))
        whole[place] = part
    return whole
