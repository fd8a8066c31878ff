"""The command line: `reserve COMMAND …`. Each command is one function here; the work is done elsewhere."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from reserve.config import SECTIONS, Config, config_path, packaged_configs
from reserve.config_values import read_yaml
from reserve.train.run_config import NAME as CONFIG_NAME
from reserve.train.run_config import RunFiles

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_EXTRAS = {"av": "video", "pysubs2": "video", "webvtt": "video", "zstandard": "text", "espeakng_loader": "demo"}
"""The extra that brings a module; "train" brings the others."""


class UsageError(Exception):
    """What the user asked for cannot be done as asked; the message says why and what would do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done, 1 failed for the reason printed, 2 wrong usage."""
    try:
        from jsonargparse import ArgumentError
    except ModuleNotFoundError as error:
        print(f"reserve: {_with_extra(error)}", file=sys.stderr)
        return 1

    # Before torch is imported. Where more threads want to run than there are cores, and loading processes see to that,
    # OpenMP threads that spin at every barrier keep each other from the core: a step took six times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # The preparation's own lines repeat what its progress shows.
    logging.getLogger("reserve.data").setLevel(logging.ERROR)
    parser, commands = build_parser()
    try:
        arguments = with_config_paths(sys.argv[1:] if arguments is None else list(arguments))
        parsed = parser.parse_args(arguments)
        command, given = parsed.subcommand, parsed[parsed.subcommand]
        run, subparser = commands[command]
        given = subparser.instantiate(given)
    except (ArgumentError, OSError, UsageError, ValueError, TypeError) as error:
        print(f"reserve: {_explained(str(error))}", file=sys.stderr)
        return 2
    return _run(run, given)


def _run(run: Callable[[Namespace], int | None], given: Namespace) -> int:
    from reserve.data.errors import BadInput
    from reserve.data.prepare import NothingPrepared
    from reserve.model.errors import CheckpointError

    try:
        return run(given) or 0
    except KeyboardInterrupt:
        print("reserve: interrupted", file=sys.stderr)
        return 130
    except UsageError as error:
        print(f"reserve: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"reserve: {_with_extra(error)}", file=sys.stderr)
        return 1
    except (BadInput, NothingPrepared, CheckpointError, ImportError, OSError, RuntimeError, ValueError) as error:
        logging.getLogger(__name__).debug("failed", exc_info=True)
        print(f"reserve: {error}", file=sys.stderr)
        return 1


def _with_extra(error: ModuleNotFoundError) -> str:
    """The error with the extra to install, where it does not say so itself."""
    package = (error.name or "").partition(".")[0]
    told = "" if "pip install" in str(error) else f": pip install 'merlot-reserve[{_EXTRAS.get(package, 'train')}]'"
    return f"{error}{told}"


def with_config_paths(arguments: list[str]) -> list[str]:
    """Replaces a packaged configuration's name after --config by its file, and --resume RUN by RUN's own settings.

    Raises UsageError where RUN is none, ValueError naming a configuration file that is broken.
    """
    out: list[str] = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if out and out[-1] in ("--config", "--resume"):
            name, value = out.pop(), argument
        if name == "--config" and value:
            out.append(f"--config={_checked_config(config_path(value))}")
        elif name == "--resume" and value:
            file = Path(value) / CONFIG_NAME
            if not file.is_file():
                raise UsageError(f"--resume {value}: it is not a run's folder, for it has no {CONFIG_NAME}")
            out += [f"--config={_checked_config(str(file))}", f"--resume={value}"]
        else:
            out.append(argument)
    return out


def _checked_config(path: str) -> str:
    """`path`, if what is there can be a configuration; the parser says what is wrong with single settings."""
    if Path(path).is_file():
        for name, section in read_yaml(path).items():
            if name in SECTIONS and not isinstance(section, dict):
                raise ValueError(f"{path}: {name} must be a map of names to values; got {type(section).__name__}")
            for key in section if name in SECTIONS else ():
                if section[key] is None:  # which the parser lets pass in a file, as a value of any type
                    raise ValueError(f"{path}: {name}.{key} must have a value; got null")
    return path


def _explained(message: str) -> str:
    """The parser's message, with the keys that are allowed where one is unknown."""
    message = re.sub(r"^.*?error: ", "", message.strip(), flags=re.DOTALL)
    unknown = re.search(r"\b(data|model|optimizer|train)\.(\w+)", message)
    if unknown and not any(f.name == unknown[2] for f in fields(SECTIONS[unknown[1]])):
        allowed = [f.name for f in fields(SECTIONS[unknown[1]])]
        near = get_close_matches(unknown[2], allowed, n=1)
        meant = f" Did you mean {unknown[1]}.{near[0]}?" if near else ""
        message += f"\n{unknown[1]} has no {unknown[2]}.{meant} It has: {', '.join(allowed)}"
    elif misspelt := re.search(r"unrecognized arguments: --(\w+)\.", message):
        near = get_close_matches(misspelt[1], SECTIONS, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        message += f"\nThere is no section {misspelt[1]}.{meant} There are: {', '.join(SECTIONS)}"
    return message


def build_parser() -> tuple[ArgumentParser, dict[str, tuple[Callable[[Namespace], int | None], ArgumentParser]]]:
    """The parser, and each command's function and own parser."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    # So that --help shows the configuration's own descriptions.
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog="reserve", description="MERLOT Reserve in PyTorch.", exit_on_error=False)
    subcommands = parser.add_subcommands(required=True)
    commands = {}
    for name, (function, add_arguments) in COMMANDS.items():
        doc = (function.__doc__ or "").strip()
        subparser = ArgumentParser(description=doc, exit_on_error=False)
        add_arguments(subparser)
        subcommands.add_subcommand(name, subparser, help=doc.splitlines()[0])
        commands[name] = (function, subparser)
    return parser, commands


def pretrain(given: Namespace) -> int | None:
    """Pretrain on a folder of videos; every setting is SECTION.KEY of the configuration."""
    from reserve.train.loop import pretrain as train
    from reserve.train.state import list_checkpoints

    out = given.resume or given.out
    if not given.videos or out is None:
        raise UsageError("pretrain needs --videos and --out (or --resume RUN)")
    if given.out is not None and given.out.resolve() != out.resolve():
        raise UsageError(f"--resume {out} goes on in {out}: leave out --out {given.out}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out must be a folder or a name that is free; {out} is a file")
    if given.resume is None and list_checkpoints(out):
        raise UsageError(f"{out} holds a run already: go on with --resume {out}, or choose another --out")
    try:
        config = Config(**{name: given[name] for name in SECTIONS})
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(train(RunFiles(given.videos, out, given.random_text, given.tokenizer), config))
    return None


def evaluate(given: Namespace) -> int | None:
    """Rank the true span, sound and frame of held-out videos among all candidates, and write a report page."""
    from reserve.evaluate import evaluate_run

    evaluation = evaluate_run(given.run, given.videos, workers=given.workers, seed=given.seed)
    print(f"{evaluation}\n{given.run / 'report.html'}")
    if given.times_chance is None:
        return None
    weak = [ranking.name for ranking in evaluation.rankings if not ranking.beats_chance(given.times_chance)]
    if weak:
        print(f"reserve: recall@1 is below {given.times_chance:g} times chance: {', '.join(weak)}", file=sys.stderr)
    return 1 if weak else 0


def demo_data(given: Namespace) -> int | None:
    """Make synthetic narrated videos with real speech: OUT/train and OUT/heldout."""
    from rich.console import Console
    from rich.progress import Progress

    from reserve.synthetic.videos import make_videos

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("making videos", total=given.videos)
        train, held_out = make_videos(
            given.out,
            videos=given.videos,
            seed=given.seed,
            held_out=given.held_out,
            workers=given.workers,
            progress=lambda done, _total: progress.update(task, completed=done),
        )
    print(f"{len(train)} videos in {given.out}/train, {len(held_out)} in {given.out}/heldout")
    return None


def train_tokenizer(given: Namespace) -> int | None:
    """Train a vocabulary in the released layout, as the shipped one was."""
    from reserve.data.train_tokenizer import train_tokenizer as train

    train(given.out)
    return None


def convert(given: Namespace) -> int | None:
    """Convert weights between the official format (.msgpack), safetensors folders and checkpoints of runs."""
    from reserve.convert import convert as run

    run(given.source, given.target, given.config)
    return None


def backends(given: Namespace) -> int | None:
    """Show which implementations of the ops can run here, which are picked, and why the others cannot."""
    from reserve_kernels import backends as table

    print(table())
    return None


def _pretrain_arguments(parser: ArgumentParser) -> None:
    names = ", ".join(packaged_configs())
    parser.add_argument("--config", action="config", help=f"{names}, or a YAML file; what follows overrides it")
    parser.add_argument("--videos", type=str, nargs="+", help="video files, and folders that are searched recursively")
    parser.add_argument("--out", type=Path, help="the run's folder: settings, metrics, checkpoints")
    parser.add_argument("--resume", type=Path, help="a run's folder: go on with its settings from its last checkpoint")
    parser.add_argument(
        "--random_text", type=Path, help="text or JSONL file, also .zst; by default other videos' transcripts"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="a vocabulary in the released layout, such as lowercase_encoder.json"
    )
    for name, section in SECTIONS.items():
        parser.add_argument(f"--{name}", type=section, default=section())


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder of a run of `reserve pretrain`")
    parser.add_argument("--videos", type=str, nargs="+", required=True, help="held-out video files and folders")
    parser.add_argument("--workers", type=int, default=2, help="processes that prepare videos")
    parser.add_argument("--seed", type=int, default=0, help="decides the masking")
    parser.add_argument(
        "--times_chance",
        type=float,
        help="fail unless every recall@1 is at least this many times chance and its 95%% interval lies above chance",
    )


def _demo_data_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("out", type=Path)
    parser.add_argument("--videos", type=int, default=48, help="videos in all")
    parser.add_argument("--held_out", type=int, default=16, help="how many of them are held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes; by default one a core, at most 8")


def _train_tokenizer_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="the tokenizers JSON to write")


def _convert_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="an official checkpoint, or a folder with model.safetensors")
    parser.add_argument("target", type=Path, help="NAME.msgpack for the official format, else a folder; must not exist")
    parser.add_argument("--config", type=str, help="for an official source: base, large or a YAML file")


def _no_arguments(parser: ArgumentParser) -> None:
    pass


COMMANDS: dict[str, tuple[Callable[[Namespace], int | None], Callable[[ArgumentParser], None]]] = {
    "pretrain": (pretrain, _pretrain_arguments),
    "evaluate": (evaluate, _evaluate_arguments),
    "demo-data": (demo_data, _demo_data_arguments),
    "train-tokenizer": (train_tokenizer, _train_tokenizer_arguments),
    "convert": (convert, _convert_arguments),
    "backends": (backends, _no_arguments),
}

if __name__ == "__main__":
    sys.exit(main())
