"""Time and memory of asking about a video, of indexing it, and of searching a large index.

`python -m benchmarks.asking --video FILE --save` stores the result in benchmarks/results; docs/asking.md shows it. The
weights are random, since others take the same time. Every case has a process of its own, whose peak memory is taken.
The video of the stored result is one of `make demo`: runs/demo/videos/heldout/story-0000.mp4.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning.provenance import provenance, store

FILE = "asking.json"
PRESETS = ("tiny", "base")
ROUNDS = 3
ANSWERS = ("red circle", "green stars", "white arrows", "a turquoise triangle")
MOMENTS = 1_000_000


def measured(preset: str, video: Path) -> dict[str, Any]:
    """Seconds of indexing and asking for a minute of a video, the median of ROUNDS, and the process's peak memory."""
    import reserve
    from reserve.config import SECTIONS, Config
    from reserve.config.load import config_file, read_settings
    from reserve.data.video import open_video
    from reserve.tasks.search import build_index

    config = Config(**read_settings([config_file(preset)], SECTIONS, {}))
    model = reserve.MerlotReserve(config.model).eval()
    opened = open_video(video)
    minutes = opened.duration / 60
    if minutes < 1 or not opened.can_be_heard:
        raise SystemExit(f"{video} must have sound and last a minute or more; it lasts {60 * minutes:.0f} s")

    def index() -> None:
        with tempfile.TemporaryDirectory() as folder:
            build_index([str(video)], folder, model)

    def ask() -> None:
        reserve.ask(video, "look at <|MASK|>", list(ANSWERS), model=model)

    found = {"index_s": _seconds(index) / minutes, "ask_s": _seconds(ask) / minutes}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return found | {"peak_gb": peak, "video": video.name, "minutes": minutes}


def _seconds(work: Callable[[], None]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _in_process(module: str, *arguments: str, threads: int) -> dict[str, Any]:
    """What `python -m MODULE` prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asking", description=__doc__.split("\n\n")[0])
    parser.add_argument("--video", type=Path, required=True, help="a video file with sound of a minute or more")
    parser.add_argument("--moments", type=int, default=MOMENTS, help="moments of the index that is searched")
    parser.add_argument("--save", action="store_true", help="store the result in benchmarks/results/MACHINE")
    parser.add_argument("--one", choices=PRESETS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measured(options.one, options.video)))
        return
    cores = len(os.sched_getaffinity(0))
    models = {
        preset: _in_process("benchmarks.asking", f"--video={options.video}", f"--one={preset}", threads=cores)
        for preset in PRESETS
    }
    searches = {
        str(threads): _in_process("benchmarks.moment_search", f"--moments={options.moments}", threads=threads)
        for threads in sorted({1, cores})
    }
    found = {"models": models, "searches": searches, "provenance": provenance()}
    print(json.dumps(found, indent=1))
    if options.save:
        print(f"stored {store(FILE, found)}")


if __name__ == "__main__":
    main()
