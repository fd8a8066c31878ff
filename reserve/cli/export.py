"""Export a run's checkpoint as a folder for from_pretrained, with its weights in one file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("source", type=Path, help="the folder of a run, or of one of its checkpoints")
    parser.add_argument("out", type=Path, help="the folder to write; must not exist")
    parser.add_argument("--step", type=int, help="the step of the run's checkpoint, by default the last one")


def run(options: Namespace) -> None:
    from reserve.train.export import export_checkpoint, find_checkpoint

    if os.path.lexists(options.out):
        raise UsageError(f"{options.out} already exists; name a new folder")
    if not options.source.is_dir():
        raise UsageError(f"{options.source} is not a folder; name that of a run or of a checkpoint")
    try:
        checkpoint = find_checkpoint(options.source, options.step)
    except ValueError as error:
        raise UsageError(str(error)) from error
    export_checkpoint(checkpoint, options.out)
    print(f"{checkpoint} -> {options.out}")
