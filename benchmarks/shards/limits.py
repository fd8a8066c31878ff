"""What grows with the number of videos of a set: finding the files, comparing signatures, the order of an epoch.

`python -m benchmarks.shards.limits --save` stores the result in benchmarks/results; docs/twenty_million.md projects it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shards.preparing import store_result
from reserve.data.filters import find_duplicates
from reserve.data.filters.signature import SIGNATURE_BYTES, make_signature
from reserve.data.order import epoch_order
from reserve.data.prepare.shards.plan import by_shard
from reserve.data.sources.discover import discover_sources

FILE = "shards_limits.json"
IN_A_FOLDER = 1000


def measured(count: int, work: Callable[[], Any]) -> dict[str, Any]:
    """Seconds of `work` on `count` things, and the memory it takes at most, in a second run: counting slows it."""
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"count": count, "seconds": seconds, "bytes": peak}


def listing(count: int) -> dict[str, Any]:
    """Finding videos with a transcript and metadata each, 1,000 in a folder, and dividing them among shards."""
    with tempfile.TemporaryDirectory() as folder:
        for video in range(count):
            parent = Path(folder, str(video // IN_A_FOLDER))
            parent.mkdir(exist_ok=True)
            for suffix in (".mp4", ".en.vtt", ".info.json"):
                (parent / f"video-{video:08d}{suffix}").touch()
        return measured(count, lambda: by_shard(discover_sources([folder]), -(-count // 256)))


def duplicates(count: int) -> dict[str, Any]:
    """Comparing the signatures of different videos."""
    rng = np.random.default_rng(0)
    version = make_signature(["one two three four five six seven eight nine ten " * 8], [0])[:2]
    hexes = rng.bytes(count * SIGNATURE_BYTES).hex()
    size = 2 * SIGNATURE_BYTES
    videos = [(f"{v:012d}.mp4", 50, version + hexes[v * size + 2 : (v + 1) * size]) for v in range(count)]
    return measured(count, lambda: find_duplicates(videos))


def order(count: int) -> dict[str, Any]:
    """The permutation of an epoch that is not the first."""
    return measured(count, lambda: epoch_order(count, 0, 1))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards.limits", description=__doc__)
    parser.add_argument("--save", action="store_true", help="store the result in benchmarks/results/MACHINE")
    options = parser.parse_args(arguments)
    result = {"listing": listing(20_000), "duplicates": duplicates(100_000), "order": order(10_000_000)}
    print(json.dumps(result, indent=1))
    if options.save:
        store_result(FILE, result)


if __name__ == "__main__":
    main()
