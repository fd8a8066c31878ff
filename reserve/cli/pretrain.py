"""Pretrain on a folder of videos; every setting is SECTION.KEY of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reserve.cli.settings import add_settings
from reserve.config import SECTIONS, Config
from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

INPUTS = {"task": str, "videos": tuple[Path, ...], "random_text": Path | None, "tokenizer": Path | None}
"""What a run's config.yaml holds beside the sections."""


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    stored = add_settings(parser, arguments, SECTIONS, INPUTS)
    if stored.get("task", "pretrain") != "pretrain":
        raise UsageError(f"the configuration is of the task {stored['task']}, not of pretraining")
    parser.add_argument(
        "--videos",
        type=str,
        nargs="+",
        default=[str(path) for path in stored.get("videos", ())],
        help="video files, and folders that are searched recursively",
    )
    parser.add_argument("--out", type=Path, help="the run's folder: settings, metrics, checkpoints")
    parser.add_argument(
        "--random_text",
        type=Path,
        default=stored.get("random_text"),
        help="text or JSONL file, also .zst; by default other videos' transcripts",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        default=stored.get("tokenizer"),
        help="a vocabulary in the released layout, such as lowercase_encoder.json",
    )


def run(options: Namespace) -> None:
    from reserve.tasks.pretrain.task import Pretrain
    from reserve.train.fit import fit
    from reserve.train.state import list_checkpoints

    out = options.resume or options.out
    if not options.videos or out is None:
        raise UsageError("pretrain needs --videos and --out (or --resume RUN)")
    if options.out is not None and options.out.resolve() != out.resolve():
        raise UsageError(f"--resume {out} continues in {out}: leave out --out {options.out}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out must be a folder or a name that is free; {out} is a file")
    if options.resume is None and list_checkpoints(out):
        raise UsageError(f"{out} already holds a run: continue it with --resume {out}, or choose another --out")
    try:
        config = Config(**{name: options[name] for name in SECTIONS})
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(fit(Pretrain.of(config, options.videos, options.random_text, options.tokenizer), out, config))
