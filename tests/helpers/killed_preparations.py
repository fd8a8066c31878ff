"""Prepares a set of shards in processes that die at a chosen step, each going on where the last one died.

Run as a module: `python -m tests.helpers.killed_preparations VIDEOS OUT`. Prints how many died.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.shard_videos import prepare


def dies_at(step: int, videos: Path, out: Path) -> bool:
    """Prepares in a child process that SIGKILL ends before its `step`th change of the file system. False if it was done
    before."""
    child = os.fork()
    if not child:
        left = [step]

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "write_bytes"), (shutil, "rmtree")):
            setattr(owner, name, counted(getattr(owner, name)))
        prepare(videos, out)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status and not os.WIFSIGNALED(status):
        raise RuntimeError(f"the preparation failed: {status}")
    return os.WIFSIGNALED(status)


def main(videos: Path, out: Path) -> None:
    # Children need not import them again.
    for module in ("av", "torch", "reserve_kernels", "safetensors.numpy"):
        importlib.import_module(module)
    deaths = 0
    while dies_at(deaths + 1, videos, out):
        deaths += 1
    print(deaths)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
