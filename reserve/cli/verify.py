"""Verify shards: read every byte of a set and report what is damaged, missing or out of place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reserve.errors import UsageError
from reserve.terminal import printable

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from reserve.data.shards.verify import Fault, Verification


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("shards", help="the folder of a set of shards, finished or not, or its URL")
    parser.add_argument("--workers", type=int, help="processes that read; by default one a core")


def run(options: Namespace) -> int:
    from reserve.data.shards.verify import verify_shards

    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers must be at least 1; got {options.workers}")
    found = verify_shards(options.shards, workers=options.workers or os.cpu_count() or 1, on_fault=_show)
    print(_summary(found))
    return 1 if found.faults else 0


def _show(fault: Fault) -> None:
    print(printable(f"{fault.file}: {fault.what}"), flush=True)


def _summary(found: Verification) -> str:
    counts, megabytes = found.counts, found.bytes_read / 1e6
    lines = [
        f"{found.shards} {'shard' if found.shards == 1 else 'shards'} with {counts.videos} videos and "
        f"{counts.segments} segments; {megabytes:.1f} MB read in "
        f"{found.seconds:.1f} s, {megabytes / max(found.seconds, 1e-9):.0f} MB/s"
    ]
    if found.unfinished is not None:
        lines.append(
            f"the set is not finished: {found.unfinished} shards are not there yet, and without a manifest the records "
            "themselves cannot be checked"
        )
    lines.append(f"{found.faults} faults" if found.faults else "no faults")
    return "\n".join(lines)
