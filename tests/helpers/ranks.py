"""Ranks of a process group, as processes that start quickly."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch.multiprocessing as mp

PRELOADED = [
    *("torch._dynamo", "torch.distributed.fsdp", "torch.utils.tensorboard", "rich.progress"),
    *("reserve.tasks.pretrain.task", "reserve.train.fit"),
]
"""What training imports, most of it where it is used. A process has one such server: all tests share this list."""


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens to. Every process group of a test needs one of its own: a rank that is
    through with the first group could else join the second one at the store of the first, and wait there for ever."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def run_ranks(function: Callable[..., None], *arguments: Any, world_size: int = 2) -> None:
    """Calls `function(rank, *arguments)` in a process per rank; raises if one of them fails.

    A server that has imported torch forks the processes: a fresh interpreter would spend three seconds on imports.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(function, arguments, world_size, start_method="forkserver")
