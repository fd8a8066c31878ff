"""torch.distributed.checkpoint over safetensors files and checkpoint.json: nothing is pickled.

PyTorch's own storage pickles the metadata of a checkpoint, and unpickling runs what a file says.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner, create_default_local_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from reserve.fs import sync_folder
from reserve.model.manifest import CHECKPOINT, MODEL, OPTIMIZER, Chunk, Manifest, StoredTensor, encode_manifest
from reserve.model.run_checkpoints import REPLACED
from reserve.model.sharded import CONFIG
from reserve.model.tensor_files import DTYPE_NAMES, DTYPES, StoredFile, write_tensors

PARTIAL = ".partial"
"""Ends the name of a checkpoint's folder until it is complete."""

State = Mapping[str, torch.Tensor]
"""Tensors by "PART/NAME"; those of a sharded model are DTensors."""

ReadPart = Callable[[str, Chunk, tuple[slice, ...]], torch.Tensor]
"""Reads a part of a chunk of a tensor whose dtype has this name."""


def remove_partial_checkpoints(folder: Path) -> None:
    """Removes the checkpoints in `folder` that a killed run was writing or removing."""
    for replaced in folder.glob(f"step_*{REPLACED}"):
        if replaced.with_name(replaced.name.removesuffix(REPLACED)).exists():
            remove_checkpoint(replaced)
    for left in folder.glob(f"step_*{PARTIAL}"):
        shutil.rmtree(left, ignore_errors=True)


def remove_checkpoint(folder: Path) -> None:
    """Removes a checkpoint. It is renamed first, so that a kill leaves no half checkpoint that counts."""
    removed = folder.with_name(f"{folder.name}.old{PARTIAL}")
    shutil.rmtree(removed, ignore_errors=True)
    shutil.rmtree(folder.replace(removed))


def save_state(
    state: State, folder: Path, header: Header, planner: SavePlanner, group: dist.ProcessGroup | None
) -> None:
    """Writes a checkpoint's folder on all ranks of `group`; returns when it is complete and renamed to `folder`.

    Raises on every rank what the first failing rank raised; `folder` is then as it was.
    """
    _quiet()
    storage = CheckpointStorage(folder, header)
    try:
        dcp.save(
            dict(state),
            storage_writer=storage,
            planner=planner,
            process_group=group,
            no_dist=group is None,
        )
    except dcp.CheckpointException as error:
        storage.remove_partial()  # Every rank is through with it. On a full disk the room is needed.
        raise _cause(error) from error


def load_state(
    state: State,
    stored: Mapping[str, StoredTensor],
    read: ReadPart,
    group: dist.ProcessGroup | None,
) -> None:
    """Copies stored tensors into those of `state`, each rank its shards, in place.

    `stored` must have the names and shapes of `state`. Raises on every rank what the first failing rank
    raised.
    """
    _quiet()
    try:
        dcp.load(
            {name: tensor for name, tensor in state.items() if tensor.numel()},
            storage_reader=CheckpointReader(stored, read),
            planner=dcp.DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
            process_group=group,
            no_dist=group is None,
        )
    except dcp.CheckpointException as error:
        raise _cause(error) from error


def _quiet() -> None:
    """Silences DCP's warning of a single process, which is what is wanted, and its log of errors that it raises.

    Called in each save: others may reset the filters.
    """
    warnings.filterwarnings("ignore", message=r"torch\.distributed is disabled, unavailable", category=UserWarning)
    logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.CRITICAL)


def _cause(error: dcp.CheckpointException) -> BaseException:
    return error.failures[min(error.failures)][0]


class Planner(DefaultSavePlanner):
    """What this rank writes of a state: its shards, and on the first rank what all ranks have.

    With `stage`, the plan is made and the tensors are copied at once, so that a thread can write them while training
    changes the state. `stage(index, tensor)` returns the copy.
    """

    def __init__(
        self, state: State, rank: int, stage: Callable[[MetadataIndex, torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False, dedup_save_to_lowest_rank=True)
        self._mine = SavePlan(
            [
                item
                for item in create_default_local_save_plan(dict(state), rank == 0).items
                if _is_writer(state[item.index.fqn], rank) and not _is_empty_shard(item)
            ]
        )
        self._staged: dict[MetadataIndex, torch.Tensor] | None = None
        if stage is not None:
            self.state_dict = dict(state)
            self._staged = {
                item.index: stage(item.index, self.lookup_object(item.index).detach()) for item in self._mine.items
            }

    def create_local_plan(self) -> SavePlan:
        self.plan = self._mine
        return self._mine

    def lookup_object(self, index: MetadataIndex) -> Any:
        return super().lookup_object(index) if self._staged is None else self._staged[index]


def _is_writer(tensor: torch.Tensor, rank: int) -> bool:
    """Whether this rank is the first of those that hold its part of a tensor."""
    if not isinstance(tensor, DTensor):
        return rank == 0
    coordinate = tensor.device_mesh.get_coordinate()
    return coordinate is not None and all(
        at == 0 for at, placement in zip(coordinate, tensor.placements, strict=True) if placement.is_replicate()
    )


def _is_empty_shard(item: WriteItem) -> bool:
    """Whether a rank holds nothing of a tensor, as where there are more ranks than rows."""
    data = item.tensor_data
    return data is not None and 0 in data.chunk.sizes and 0 not in data.size


@dataclass(frozen=True)
class Header:
    """What a checkpoint holds besides tensors.

    `starting` runs on the first rank before the checkpoint's folder is made, `committed` once it is complete.
    """

    progress: Mapping[str, Any]
    world_size: int
    mean_loss: float | None
    config: str
    starting: Callable[[], None]
    committed: Callable[[], None]


@dataclass(frozen=True)
class _Written:
    """Where an item is."""

    file: str
    key: str
    content: StoredFile


class CheckpointStorage(StorageWriter):
    """Writes a checkpoint's folder, under a name with PARTIAL until it is complete.

    A part that one rank writes is PART.safetensors, as in a pretrained folder, else PART-00001-of-00002.safetensors
    and so on.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self._folder, self._header = folder, header
        self._partial = folder.with_name(folder.name + PARTIAL)

    def remove_partial(self) -> None:
        """Removes what a save that failed has written."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        pass

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Makes the folder and gives each rank the names of its files."""
        self._header.starting()
        remove_partial_checkpoints(self._folder.parent)
        self._partial.mkdir(parents=True)
        names: list[dict[str, str]] = [{} for _ in plans]
        for part in (MODEL, OPTIMIZER):
            writers = [at for at, plan in enumerate(plans) if any(_part(item.index) == part for item in plan.items)]
            for number, at in enumerate(writers, 1):
                shard = "" if len(writers) == 1 else f"-{number:05d}-of-{len(writers):05d}"
                names[at][part] = f"{part}{shard}.safetensors"
        return [replace(plan, storage_data=own) for plan, own in zip(plans, names, strict=True)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        parts: dict[str, dict[str, WriteItem]] = defaultdict(dict)
        for item in plan.items:
            parts[_part(item.index)][_key(item)] = item
        results = []
        for part, items in parts.items():
            file = plan.storage_data[part]

            def read(key: str, items: dict[str, WriteItem] = items) -> torch.Tensor:
                value = planner.resolve_data(items[key])
                assert isinstance(value, torch.Tensor)
                return value

            shapes = {key: _dtype_and_shape(item) for key, item in items.items()}
            content = write_tensors(self._partial / file, shapes, read)
            results += [
                WriteResult(item.index, content.size, _Written(file, key, content)) for key, item in items.items()
            ]
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Writes config.json and checkpoint.json, and renames the folder."""
        written = {result.index: result.storage_data for rank in results for result in rank}
        files = {place.file: place.content for place in written.values()}
        for name, content in files.items():
            path = self._partial / name
            if not path.is_file() or path.stat().st_size != content.size:
                raise OSError(
                    f"the first rank does not find {path}, which another rank wrote: the run's folder must "
                    "be on storage that all machines share"
                )
        files[CONFIG] = _write_text(self._partial / CONFIG, self._header.config.encode())
        tensors: dict[str, dict[str, StoredTensor]] = {MODEL: {}, OPTIMIZER: {}}
        for fqn, tensor in metadata.state_dict_metadata.items():
            assert isinstance(tensor, TensorStorageMetadata)
            part, _, name = fqn.partition("/")
            chunks = [
                Chunk(place.file, place.key, tuple(chunk.offsets), tuple(chunk.sizes))
                for chunk in sorted(tensor.chunks, key=lambda chunk: tuple(chunk.offsets))
                for place in [written[MetadataIndex(fqn, chunk.offsets)]]
            ]
            tensors[part][name] = StoredTensor(DTYPE_NAMES[tensor.properties.dtype], tuple(tensor.size), tuple(chunks))
        header = self._header
        manifest = Manifest(header.progress, header.world_size, header.mean_loss, files, tensors)
        _write_text(self._partial / CHECKPOINT, encode_manifest(manifest))
        sync_folder(self._partial)
        replaced = self._folder.with_name(self._folder.name + REPLACED)
        if self._folder.exists():
            self._folder.replace(replaced)  # It still counts if the run is killed here.
        self._partial.replace(self._folder)
        sync_folder(self._folder.parent)
        if replaced.exists():
            with suppress(OSError):  # The next start removes it.
                remove_checkpoint(replaced)
        header.committed()


class CheckpointReader(StorageReader):
    """Reads the parts of stored tensors that this rank holds."""

    def __init__(self, stored: Mapping[str, StoredTensor], read: ReadPart) -> None:
        self._stored, self._read = stored, read

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        pass

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return Metadata(
            {
                fqn: TensorStorageMetadata(
                    TensorProperties(DTYPES[tensor.dtype]),
                    torch.Size(tensor.shape),
                    [ChunkStorageMetadata(torch.Size(c.offsets), torch.Size(c.sizes)) for c in tensor.chunks],
                )
                for fqn, tensor in self._stored.items()
            }
        )

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        chunks = {
            (fqn, chunk.offsets): (tensor.dtype, chunk)
            for fqn, tensor in self._stored.items()
            for chunk in tensor.chunks
        }
        for item in plan.items:
            dtype, chunk = chunks[item.storage_index.fqn, tuple(item.storage_index.offset or ())]
            part = tuple(
                slice(start, start + length) for start, length in zip(item.storage_offsets, item.lengths, strict=True)
            )
            target = planner.resolve_tensor(item).detach()
            target.copy_(self._read(dtype, chunk, part))
            planner.commit_tensor(item, target)
        future: Future[None] = Future()
        future.set_result(None)
        return future


def _part(index: MetadataIndex) -> str:
    return index.fqn.partition("/")[0]


def _key(item: WriteItem) -> str:
    """The name of an item in its file: the tensor's, with the place of a chunk that is not all of it."""
    name = item.index.fqn.partition("/")[2]
    data = item.tensor_data
    assert data is not None
    return name if data.chunk.sizes == data.size else f"{name}@{','.join(map(str, data.chunk.offsets))}"


def _dtype_and_shape(item: WriteItem) -> tuple[str, tuple[int, ...]]:
    data = item.tensor_data
    assert data is not None
    return DTYPE_NAMES[data.properties.dtype], tuple(data.chunk.sizes)


def _write_text(path: Path, content: bytes) -> StoredFile:
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
    return StoredFile(len(content), hashlib.sha256(content).hexdigest())
