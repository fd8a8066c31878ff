"""One process or many: the process group, this rank's device, and agreement between ranks."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from reserve.errors import CheckpointError, DamagedCheckpoint

LONGEST_WAIT = timedelta(days=30)
"""Timeout of host-side communication. While the first rank prepares the videos the others wait, for days if there are
many; PyTorch's default is half an hour. A rank that dies ends the wait at once, whatever the timeout, and
`reserve.train.watch` ends the wait for one that is lost otherwise."""

_joined = 0
"""How often this process has joined the ranks."""
_KINDS: tuple[type[Exception], ...] = (DamagedCheckpoint, CheckpointError, ValueError)
"""The errors that ranks tell each other apart."""


def _kind(error: Exception) -> type[Exception]:
    return next((kind for kind in _KINDS if isinstance(error, kind)), ValueError)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    `group` is the ranks' process group, None for a single process; `control` is a gloo group for host-side decisions,
    and `saving` another one, for the thread that writes checkpoints.
    """

    rank: int
    world_size: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    control: dist.ProcessGroup | None = None
    saving: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        """Waits until every rank is here."""
        if self.control is not None:
            dist.barrier(group=self.control)

    def any(self, flag: bool) -> bool:
        """True on every rank if `flag` is true on any; exchanged through host memory, without synchronising a GPU."""
        if self.control is None:
            return flag
        flags = torch.tensor([flag], dtype=torch.int32, device="cpu")
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self.control)
        return bool(flags)

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum over ranks of each of some host-side numbers, exchanged through host memory."""
        if self.control is None:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device="cpu")
        dist.all_reduce(sums, group=self.control)
        return sums.tolist()

    def max(self, values: Sequence[float]) -> list[float]:
        """The largest over ranks of each of some host-side numbers, exchanged through host memory."""
        if self.control is None:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float64, device="cpu")
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.control)
        return largest.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, which must be picklable, in the order of the ranks; on the first rank alone, empty
        elsewhere."""
        if self.control is None:
            return [value]
        found = [None] * self.world_size if self.is_first else None
        dist.gather_object(value, found, group=self.control)
        return found or []

    def fail_together(self, error: Exception | None) -> None:
        """Raises on every rank if one of them has an error: on that rank the error, elsewhere one with its text.

        The error elsewhere is a CheckpointError or DamagedCheckpoint if the rank's is one, else a ValueError. Where one
        rank has a DamagedCheckpoint, all raise one: they go on together.
        """
        mine = None if error is None else (_KINDS.index(_kind(error)), str(error))
        everyone: list[tuple[int, str] | None] = [mine]
        if self.control is not None:
            everyone = [None] * self.world_size
            dist.all_gather_object(everyone, mine, group=self.control)
        found = [(other[0], rank, other[1]) for rank, other in enumerate(everyone) if other is not None]
        if not found:
            return
        worst, rank, text = min(found)
        if error is not None and (_kind(error) is _KINDS[worst] or _KINDS[worst] is not DamagedCheckpoint):
            raise error
        raise _KINDS[worst](f"{text} (found by rank {rank})") from error

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over ranks of a tensor of float32 numbers on `device`."""
        if self.group is not None:
            values = values.clone()
            dist.all_reduce(values, group=self.group)
            values /= self.world_size
        return values


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device for "auto", "cpu" or "cuda"; raises RuntimeError where there is no such device."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("train.device is cuda, but PyTorch sees no CUDA device here; use cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def group_timeout(hang_timeout: float) -> timedelta:
    """Timeout of communication between devices, for a run with this train.hang_timeout, in seconds.

    It is the longer one, since NCCL's ends the process without saying which rank is missing.
    """
    return timedelta(seconds=max(2 * hang_timeout, 1800)) if hang_timeout else LONGEST_WAIT


def start_name() -> str:
    """Names this start among those that share a store: torchrun's restarts, and the calls of one program.

    All ranks must join as often.
    """
    return f"restart_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}_{_joined}"


def _store_of_this_start() -> dict[str, Any]:
    """The store to join by, where it is torchrun's.

    torchrun keeps its store, and PyTorch (2.13) would read the addresses of the ranks before from it.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    store, rank, world_size = next(dist.rendezvous("env://"))
    return {"store": dist.PrefixStore(start_name(), store), "rank": rank, "world_size": world_size}


@contextmanager
def joined_ranks(device: str, timeout: timedelta | None = None) -> Iterator[Ranks]:
    """This process as one of those that torchrun started, or as the only one.

    `timeout` is that of communication between devices, None for PyTorch's own.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks(0, 1, pick_device(device))
        return
    here = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if here.type == "cuda":
        torch.cuda.set_device(here)
    # With gloo beside NCCL, ranks exchange what their hosts know without waiting for their GPUs.
    backend = "cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timeout, **_store_of_this_start())
    global _joined
    _joined += 1
    try:
        control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        saving = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        yield Ranks(dist.get_rank(), world_size, here, dist.group.WORLD, control, saving)
    finally:
        # Wrapped models are in reference cycles, so they may outlive the process group. Collecting one later joins
        # gloo's threads while it holds the GIL, which such a thread may be waiting for: a deadlock. A thread that is
        # never joined can abort the process at exit.
        gc.collect()
        dist.destroy_process_group()
