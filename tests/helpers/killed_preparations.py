"""Prepares a set of shards in processes that die at a chosen write, each going on where the last one died.

Run as a module: `python -m tests.helpers.killed_preparations VIDEOS OUT`. Prints at which writes processes died.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.helpers.shard_videos import prepare


def dies_at(write: int, videos: Path, out: Path) -> bool:
    """Prepares in a child process that SIGKILL ends before its `write`th file gets its name. False if it was done
    before."""
    child = os.fork()
    if not child:
        rename, left = Path.replace, [write]

        def replace(self: Path, target: Path) -> Path:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)

        Path.replace = replace  # type: ignore[method-assign]
        prepare(videos, out)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status and not os.WIFSIGNALED(status):
        raise RuntimeError(f"the preparation failed: {status}")
    return os.WIFSIGNALED(status)


def main(videos: Path, out: Path) -> None:
    deaths = []
    write = 1
    while dies_at(write, videos, out):
        deaths.append(write)
        write = write % 4 + 1  # A process that died before its first write was made no progress by the next does.
    print(*deaths)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
