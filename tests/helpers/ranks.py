"""Ranks of a process group, as processes that start quickly."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

PRELOADED = ["torch", "reserve.tasks.pretrain.task"]


def run_ranks(function: Callable[..., None], *arguments: Any, world_size: int = 2) -> None:
    """Calls `function(rank, *arguments)` in a process per rank; raises if one of them fails.

    A server that has imported torch forks the processes: a fresh interpreter would spend two seconds on imports.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(function, arguments, world_size, start_method="forkserver")
