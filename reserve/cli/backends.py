"""Show which back ends of the ops and which video decoders can run here, or which decoders files get, and why.

Without arguments: the back ends and decoders of this machine, and why the others cannot run. With videos or folders of
them: the streams of each file, the decoders of its pictures and sound, and why others are passed over; the exit status
is 1 if a file cannot be used. --decoder asks for one by its name, as preparation does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="video files, or folders that are searched")
    parser.add_argument("--decoder", type=str, default="auto", help="with VIDEO: auto, or the name of a decoder")


def run(options: Namespace) -> int:
    if options.videos:
        return _show_files(options.videos, options.decoder)
    if options.decoder != "auto":
        raise UsageError("--decoder needs a VIDEO")
    from reserve.data.decode import decoder_table
    from reserve_kernels import backends

    print(f"{backends()}\n\n{decoder_table()}")
    return 0


def _show_files(videos: Sequence[str], decoder: str) -> int:
    from reserve.data.decode import candidates
    from reserve.data.decode.explain import choose_for_file, file_table
    from reserve.data.sources.discover import discover_sources

    decoders = candidates(decoder)
    choices = [choose_for_file(source.path, decoders) for source in discover_sources(videos)]
    print(file_table(choices))
    if decoders.passed_over:
        print("\npassed over on this machine: " + "; ".join(map(str, decoders.passed_over)))
    return int(any(choice.error for choice in choices))
