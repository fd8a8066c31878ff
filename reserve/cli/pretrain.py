"""Pretrain on a folder of videos, or on prepared shards; every setting is SECTION.KEY of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reserve.cli.settings import add_settings, resumes
from reserve.cli.training import fit_with_report
from reserve.config import SECTIONS, Config
from reserve.config.load import plain_values, yaml_text
from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

INPUTS = {
    "task": str,
    "videos": tuple[Path, ...],
    "shards": tuple[str, ...],
    "shard_weights": tuple[float, ...],
    "held_out": tuple[Path, ...],
    "held_out_shards": tuple[str, ...],
    "out": Path | None,
    "random_text": Path | None,
    "tokenizer": Path | None,
}
"""What a configuration may hold beside the sections; a run's config.yaml holds all but `out`."""


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    stored = add_settings(parser, arguments, SECTIONS, INPUTS)
    if stored.get("task", "pretrain") != "pretrain":
        raise UsageError(f"the configuration is of the task {stored['task']}, not of pretraining")
    given = {argument.partition("=")[0] for argument in arguments}
    # What is given replaces the videos and shards of a file, whichever it has.
    if given & {"--videos", "--shards"}:
        stored = {name: value for name, value in stored.items() if name not in ("videos", "shards", "shard_weights")}
    if given & {"--held_out", "--held_out_shards"}:
        stored = {name: value for name, value in stored.items() if name not in ("held_out", "held_out_shards")}
    parser.add_argument(
        "--videos",
        type=str,
        nargs="+",
        default=[str(path) for path in stored.get("videos", ())],
        help="video files, and folders that are searched recursively",
    )
    parser.add_argument(
        "--shards",
        type=str,
        nargs="+",
        default=list(stored.get("shards", ())),
        help="instead of videos: sets that `reserve prepare` has made, folders or URLs such as s3://bucket/set",
    )
    parser.add_argument(
        "--shard_weights",
        type=float,
        nargs="+",
        default=list(stored.get("shard_weights", ())),
        help="the sets' shares of the examples, one a set; by default all sets are used as one",
    )
    parser.add_argument(
        "--held_out",
        type=str,
        nargs="+",
        default=[str(path) for path in stored.get("held_out", ())],
        help="video files and folders that train.evaluate_every evaluates on",
    )
    parser.add_argument(
        "--held_out_shards",
        type=str,
        nargs="+",
        default=list(stored.get("held_out_shards", ())),
        help="instead of --held_out: sets of shards to evaluate on",
    )
    parser.add_argument(
        "--out", type=Path, default=stored.get("out"), help="the run's folder: settings, metrics, checkpoints"
    )
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
    # No plain flag: jsonargparse makes --print_config= of it, for an option of its own of this name.
    parser.add_argument("--print_config", nargs="?", const="", help="print all settings as YAML and exit")


def run(options: Namespace) -> None:
    if options.print_config is not None:
        inputs = {"videos": tuple(map(Path, options.videos)), "out": options.out}
        if options.shards:
            inputs |= {"shards": tuple(options.shards), "shard_weights": tuple(options.shard_weights)}
        if options.held_out:
            inputs |= {"held_out": tuple(map(Path, options.held_out))}
        if options.held_out_shards:
            inputs |= {"held_out_shards": tuple(options.held_out_shards)}
        inputs |= {name: options[name] for name in ("random_text", "tokenizer", *SECTIONS)}
        print(yaml_text({name: plain_values(value) for name, value in inputs.items()}), end="")
        return
    from reserve.model.run_checkpoints import list_checkpoints
    from reserve.tasks.pretrain.task import Pretrain

    out = options.resume or options.out
    if not (options.videos or options.shards) or out is None:
        raise UsageError("pretrain needs --videos or --shards, and --out (or --resume RUN)")
    if options.videos and options.shards:
        raise UsageError("pretrain takes --videos or --shards, not both: `reserve prepare` makes shards of videos")
    if options.out is not None and options.out.resolve() != out.resolve():
        raise UsageError(f"--resume {out} continues in {out}: leave out --out {options.out}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out must be a folder or a name that is free; {out} is a file")
    if options.resume is None and not resumes(options.auto_resume, out) and list_checkpoints(out):
        raise UsageError(f"{out} already holds a run: continue it with --resume {out}, or choose another --out")
    try:
        config = Config(**{name: options[name] for name in SECTIONS})
        task = Pretrain.of(
            config,
            options.videos,
            options.random_text,
            options.tokenizer,
            shards=options.shards,
            shard_weights=options.shard_weights,
            held_out=options.held_out,
            held_out_shards=options.held_out_shards,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(fit_with_report(task, out, config))
