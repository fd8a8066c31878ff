"""Prepare videos into shards: `reserve prepare SOURCE [SOURCE ...] OUT`.

Run it again to resume after an interruption or to pick up changes. Several processes may work on one OUT at once, on
machines that share a file system, each on its own fold or all on the same one.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from reserve.cli.pretrain import INPUTS
from reserve.cli.settings import check_setting_names, named_options
from reserve.config import SECTIONS, DataConfig, FilterConfig
from reserve.config.load import config_file, preset_names, read_settings
from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from reserve.data.prepare.shards import Preparation
    from reserve.data.prepare.shards.engines import Engine

_SECTIONS: dict[str, type] = {"data": DataConfig, "filter": FilterConfig}


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    files = named_options(arguments, "config")["config"]
    # A pretraining configuration has more sections and inputs; they are ignored here.
    stored = read_settings([config_file(name) for name in files], SECTIONS | _SECTIONS, INPUTS)
    check_setting_names(arguments, _SECTIONS)
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="video files, folders that are searched, or the folder of a run"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of the shards")
    parser.add_argument("--config", action="append", help=f"{', '.join(preset_names())}, or a YAML file")
    for name, section in _SECTIONS.items():
        parser.add_argument(f"--{name}", type=section, default=stored.get(name, section()))
    parser.add_argument(
        "--sound",
        type=Literal["log_mel", "flac"],
        default="log_mel",
        help="store spectrograms, or the sound itself, from which the loader computes them",
    )
    parser.add_argument("--videos_per_shard", type=int, default=256, help="videos of a shard on average")
    parser.add_argument("--fold", type=int, default=0, help="the part of the shards to prepare, counted from 0")
    parser.add_argument("--folds", type=int, default=1, help="number of parts that the shards are divided into")
    parser.add_argument(
        "--engine", type=Literal["local", "ray"], default="local", help="processes of this machine, or a Ray cluster"
    )
    parser.add_argument(
        "--ray_address", type=str, help="with --engine ray: a running cluster; by default one is started here"
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="processes, by default one a core; with --ray_address, tasks in flight, by default two a core",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the segments' start times")
    parser.add_argument(
        "--audio_track", type=int, help="which audio track is heard, counted from 0; by default the languages choose"
    )
    parser.add_argument("--decoder", type=str, default="auto", help="auto, or the name of a decoder")
    parser.add_argument("--retry_skipped", action="store_true", help="retry files that were skipped as unusable before")


def run(options: Namespace) -> None:
    from reserve.config.training import MAX_SEED
    from reserve.data.prepare.shards import prepare_shards, shard_progress

    for name, least in (("workers", 1), ("audio_track", 0), ("seed", 0)):
        if options[name] is not None and options[name] < least:
            raise UsageError(f"--{name} must be at least {least}; got {options[name]}")
    if options.seed > MAX_SEED:
        raise UsageError(f"--seed must be at most 2^63 - 1; got {options.seed}")
    if options.ray_address is not None and options.engine != "ray":
        raise UsageError("--ray_address needs --engine ray")
    for name, least in (("videos_per_shard", 1), ("folds", 1)):
        if options[name] < least:
            raise UsageError(f"--{name} must be at least {least}; got {options[name]}")
    if not 0 <= options.fold < options.folds:
        raise UsageError(
            f"--fold must be from 0 to {options.folds - 1} with --folds {options.folds}; got {options.fold}"
        )
    with _ending_workers(), _engine(options) as engine, shard_progress() as show:
        preparation = prepare_shards(
            options.sources,
            options.out,
            options.data,
            options.filter,
            sound=options.sound,
            videos_per_shard=options.videos_per_shard,
            fold=options.fold,
            folds=options.folds,
            engine=engine,
            workers=options.workers or os.cpu_count() or 1,
            seed=options.seed,
            audio_track=options.audio_track,
            decoder=options.decoder,
            retry_skipped=options.retry_skipped,
            on_event=show,
        )
    print(_summary(options.out, options.folds, preparation))


@contextmanager
def _ending_workers() -> Iterator[None]:
    """Makes SIGTERM end the worker processes and unlock the shards, as Ctrl-C does. Says that the work can resume."""

    received: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print("reserve: stopped. What is prepared is kept: run the command again to resume", file=sys.stderr)
        if received:  # Ray replaces the handler's SystemExit with one of status 1
            raise SystemExit(128 + received[0]) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _engine(options: Namespace) -> Iterator[Engine]:
    if options.engine == "ray":
        from reserve.data.prepare.shards.engines.ray import ray_engine

        with ray_engine(options.ray_address, options.workers) as engine:
            yield engine
    else:
        from reserve.data.prepare.shards.engines.local import LocalEngine

        yield LocalEngine(options.workers or os.cpu_count() or 1)


def _summary(out: Path, folds: int, fold: Preparation) -> str:
    """What the fold holds, what it skipped, and what is left to others."""
    from reserve.data.prepare.results import decoder_counts
    from reserve.data.prepare.shards import skipped_counts

    used = (
        f"{fold.videos} videos with {fold.segments} segments and {fold.words} words in {_shards(fold.shards)} "
        f"({fold.bytes / 2**20:.1f} MiB)"
    )
    decoders = [f"frames by {counts}"] if (counts := decoder_counts(fold.decoders)) else []
    lines = ["; ".join([used, *decoders, *skipped_counts(fold.skipped)])]
    if fold.manifest is None:
        are = "is" if fold.remaining == 1 else "are"
        left = "left to other folds" if folds > 1 else "out of date, since files changed meanwhile: run this again"
        lines.append(f"{out} is not finished: {_shards(fold.remaining)} {are} {left}")
    else:
        lines.append(
            f"{out} is finished: {fold.manifest.videos} videos with {fold.manifest.segments} segments in "
            f"{_shards(len(fold.manifest.shards))}"
        )
    return "\n".join(lines)


def _shards(count: int) -> str:
    return f"{count} shard{'s' * (count != 1)}"
