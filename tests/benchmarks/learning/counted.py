"""A study whose runs say how many threads they have, or fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.learning.runs import run_one


def work(folder: Path, settings: dict) -> dict:
    if settings["name"] == "fails":
        raise ValueError("no rate")
    return {"threads": os.environ["OMP_NUM_THREADS"]}


if __name__ == "__main__":
    run_one(Path(sys.argv[2]), work)
