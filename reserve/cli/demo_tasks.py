"""Make small data sets in the formats of the downstream tasks from the videos of `reserve demo-data`: OUT/TASK."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("videos", type=Path, help="folder that `reserve demo-data` has made")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", nargs="+", help="such as vcr or epic-kitchens; by default all seven")
    parser.add_argument("--questions", type=int, default=20, help="questions about each video; clips of Kinetics-600")
    parser.add_argument("--seed", type=int, default=0)


def run(options: Namespace) -> None:
    from reserve.errors import UsageError
    from reserve.synthetic.datasets import DATA_SETS, make_data_set

    tasks = options.tasks or list(DATA_SETS)
    for task in tasks:
        if task not in DATA_SETS:
            raise UsageError(f"--tasks must be of {', '.join(DATA_SETS)}; got {task!r}")
    for task in tasks:
        folder = options.out / task
        written = make_data_set(task, options.videos, folder, questions=options.questions, seed=options.seed)
        print(f"{folder}: {', '.join(f'{number} {what}' for what, number in written.items())}", flush=True)
