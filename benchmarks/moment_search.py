"""Time and memory of searching an index of moments: `python -m benchmarks.moment_search --moments 1000000`.

The vectors are random unit vectors, so neighbours are as hard to tell apart as they can be; an exact search takes the
same time for any. It is timed in one process: what reading the index takes, from the page cache since it was written
just before, then the median of single queries.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from reserve.tasks.search import MomentIndex
from reserve.tasks.search.index import PARTS, write_manifest
from reserve.tasks.search.parts import SUFFIX, Moments, PartHeader, write_part

PER_PART = 20_000
"""Moments of a part: some nine hours of video."""
SECONDS = 5 / 3
QUERIES = 15


def unit_vectors(rng: np.random.Generator, count: int, hidden: int) -> np.ndarray:
    vectors = rng.standard_normal((count, hidden), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_index(folder: Path, moments: int, hidden: int) -> None:
    """An index of random vectors of words and of sound in parts of PER_PART moments, each one video."""
    write_manifest(folder, "random", hidden)
    rng = np.random.default_rng(0)
    for number, first in enumerate(range(0, moments, PER_PART)):
        count = min(PER_PART, moments - first)
        start = np.arange(count) * SECONDS
        words, sounds = (unit_vectors(rng, count, hidden).astype(np.float16) for _ in range(2))
        write_part(
            folder / PARTS / f"{number:05d}{SUFFIX}",
            PartHeader("random", str(number), "", (f"{number}.mp4",), ()),
            Moments(start, start + SECONDS, np.zeros(count, np.int32), words, sounds, np.arange(count, dtype=np.int32)),
        )


def measured(folder: Path, hidden: int) -> dict[str, float]:
    """Seconds to read an index and milliseconds of single queries, with the process's peak memory."""
    rng = np.random.default_rng(1)
    began = time.perf_counter()
    index = MomentIndex.open(folder)
    index.search_vector("text", unit_vectors(rng, 1, hidden)[0])
    read = time.perf_counter() - began
    times = []
    for vector in unit_vectors(rng, QUERIES, hidden):
        began = time.perf_counter()
        index.search_vector("text", vector)
        times.append(1e3 * (time.perf_counter() - began))
    low, middle, high = statistics.quantiles(times, n=4)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"read_s": read, "query_ms": middle, "query_ms_low": low, "query_ms_high": high, "peak_gb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=768, help="numbers of a vector")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder), options.moments, options.hidden)
        print(json.dumps(vars(options) | measured(Path(folder), options.hidden)))


if __name__ == "__main__":
    main()
