"""What the commands of all studies have in common: options, and what becomes of a result."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.learning.provenance import store

OUT = Path("runs/learning")


def study_parser(module: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options of every study; `--one` is for the processes of its runs."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the runs; those of objectives are in it too")
    parser.add_argument("--again", action="store_true", help="repeat runs that are finished")
    parser.add_argument("--save", action="store_true", help="store the result in benchmarks/results/MACHINE")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    return parser


def show(
    found: Mapping[str, Any], section: Callable[[str, Mapping[str, Any]], str], file: str, options: argparse.Namespace
) -> None:
    """Prints a result as the page's section shows it, and stores it if that was asked for."""
    print(section("this machine", found))
    if options.save:
        print(f"stored {store(file, found)}")
