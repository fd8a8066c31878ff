"""Inspect shards: write a page with frames, spectrograms or sound, and words of some of their videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("shards", help="the folder or URL of a finished set of shards, or the .tar of a shard")
    parser.add_argument("--out", type=Path, help="the page to write; by default NAME.html in the current folder")
    parser.add_argument("--videos", type=int, default=8, help="videos to show, evenly spaced through the shards")
    parser.add_argument("--video", type=str, help="show this video only, by its id")
    parser.add_argument("--segments", type=int, default=24, help="most segments to show of a video, evenly spaced")


def run(options: Namespace) -> None:
    from reserve.report.shard_page import split_place, write_shard_page

    for name in ("videos", "segments"):
        if options[name] < 1:
            raise UsageError(f"--{name} must be at least 1; got {options[name]}")
    out = options.out or Path(f"{split_place(options.shards)[1].removesuffix('.tar')}.html")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file")
    write_shard_page(options.shards, out, videos=options.videos, video=options.video, segments=options.segments)
    print(f"{out}: open it in a browser")
