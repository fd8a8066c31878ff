"""Ranks of a process group, as processes that start quickly."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.multiprocessing as mp

PRELOADED = [
    "torch._dynamo",
    "torch.distributed.fsdp",
    "tensorboard.compat.proto.event_pb2",
    "rich.progress",
    "reserve.tasks.pretrain.task",
    "reserve.train.fit",
]
"""What the fork server imports: what training needs, most of it imported where it is used. A process has one fork
server, so all tests share this list."""

_RESERVED: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens to, reserved until this process ends.

    A reserved port stays bound, so the system gives it to no other process, yet a listener that sets SO_REUSEADDR, as
    PyTorch's stores do, may take it. Every process group of a test needs one of its own: a rank that is through with
    the first group could else join the second one at the store of the first, and wait there for ever.
    """
    ports = []
    for _ in range(count):
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        _RESERVED.append(reserved)
        ports.append(reserved.getsockname()[1])
    return ports


def run_ranks(function: Callable[..., None], *arguments: Any, world_size: int = 2) -> None:
    """Calls `function(rank, *arguments)` in a process per rank; raises if one of them fails.

    A server that has imported torch forks the processes: a fresh interpreter would spend three seconds on imports.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(function, arguments, world_size, start_method="forkserver")


def check_gloo_threads_ended() -> None:
    """Fails if a thread of a gloo group outlives it. Such a thread can abort the process while Python ends."""
    end = time.monotonic() + 60
    # The system still lists a thread for a moment after it was joined.
    while "pt_gloo_runloop" in (names := _thread_names()):
        assert time.monotonic() < end, names
        time.sleep(0.01)


def _thread_names() -> list[str]:
    """The names of this process's threads; empty where the system does not list them."""
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # The thread ended meanwhile.
            names.append(path.read_text().strip())
    return names
