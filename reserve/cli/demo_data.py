"""Make synthetic narrated videos with real speech: OUT/train and OUT/heldout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("out", type=Path)
    parser.add_argument("--videos", type=int, default=48, help="videos in all")
    parser.add_argument("--held_out", type=int, default=16, help="how many of them are held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes; by default one a core, at most 8")


def run(options: Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from reserve.synthetic.videos import make_videos

    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("making videos", total=options.videos)
        train, held_out = make_videos(
            options.out,
            videos=options.videos,
            seed=options.seed,
            held_out=options.held_out,
            workers=options.workers,
            progress=lambda done, _total: progress.update(bar, completed=done),
        )
    print(f"{len(train)} videos in {options.out}/train, {len(held_out)} in {options.out}/heldout")
