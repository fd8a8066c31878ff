"""Parses the command line, runs the command, and turns what goes wrong into one line and an exit status."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from reserve.cli.signals import redelivered_signals
from reserve.errors import RESUMABLE, BadInput, CheckpointError, NothingPrepared, RankLost, Stopped, UsageError
from reserve.terminal import printable_lines

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

COMMANDS = (
    *(
        "prepare",
        "verify",
        "inspect",
        "pretrain",
        "finetune",
        "zeroshot",
        "ask",
        "search",
        "serve",
        "evaluate",
        "report",
    ),
    *("export", "convert", "backends", "demo-data", "demo-tasks", "demo-ask", "train-tokenizer"),
)
"""Each is a module of this package with `add_arguments(parser, arguments)` and `run(options)`; its docstring is the
command's help."""

_EXTRAS = {
    "sacremoses": "tasks",
    "ftfy": "tasks",
    "unidecode": "tasks",
    "av": "video",
    "chardet": "video",
    "py3langid": "video",
    "zstandard": "text",
    "aiohttp": "http",
    "espeakng_loader": "demo",
    "faiss": "search",
    "starlette": "serve",
    "uvicorn": "serve",
    "ray": "ray",
    "wandb": "wandb",
}
"""The extra that installs a module; "train" installs the others."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done, 1 failed for the reason printed, 2 wrong usage, 75 ended
    by something outside of it, so that the same command can resume."""
    try:
        from jsonargparse import ArgumentError
    except ModuleNotFoundError as error:
        print(f"reserve: {_with_extra(error)}", file=sys.stderr)
        return 1

    # Before torch is imported. With loading processes there are more runnable threads than cores, and OpenMP threads
    # that spin at barriers then keep the others from running.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # The progress display shows what the preparation would log.
    logging.getLogger("reserve.data.prepare").setLevel(logging.ERROR)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        parser, subparsers = build_parser(arguments)
        parsed = parser.parse_args(arguments)
        command = parsed.subcommand
        options = subparsers[command].instantiate(parsed[command])
    except (ArgumentError, OSError, UsageError, ValueError, TypeError) as error:
        print(f"reserve: {_without_prefix(str(error))}", file=sys.stderr)
        return 2
    return _run(_module(command), options)


def _run(module: ModuleType, options: Namespace) -> int:
    try:
        with redelivered_signals():
            return module.run(options) or 0
    except Stopped as stopped:
        print(f"reserve: {stopped}", file=sys.stderr)
        return RESUMABLE
    except RankLost as lost:
        print(f"reserve: {printable_lines(str(lost))}", file=sys.stderr)
        return RESUMABLE
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
        print(f"reserve: {printable_lines(str(error))}", file=sys.stderr)
        return 1


def build_parser(arguments: Sequence[str]) -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The parser and each command's own; if `arguments` name a command, only that one has its arguments.

    `arguments` decide the defaults of commands that take a configuration file. Raises ValueError or UsageError where
    that file or the name of a setting is wrong.
    """
    from jsonargparse import ArgumentParser, set_parsing_settings

    # So that --help shows the descriptions of the configuration's fields.
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog="reserve", description="MERLOT Reserve in PyTorch.", exit_on_error=False)
    subcommands = parser.add_subcommands(required=True)
    subparsers = {}
    # Making the arguments of all commands takes half a second; only help and the documentation need them.
    chosen = arguments[0] if arguments and arguments[0] in COMMANDS else None
    for name in COMMANDS:
        module = _module(name)
        help_text = (module.__doc__ or "").strip()
        subparsers[name] = ArgumentParser(description=help_text, exit_on_error=False)
        # Before the arguments, which may be commands of their own: jsonargparse wants outer ones first.
        subcommands.add_subcommand(name, subparsers[name], help=help_text.splitlines()[0])
        if chosen in (name, None):
            module.add_arguments(subparsers[name], arguments[1:] if chosen else [])
    return parser, subparsers


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"reserve.cli.{command.replace('-', '_')}")


def _with_extra(error: ModuleNotFoundError) -> str:
    """The error with the extra to install, unless it names it itself."""
    package = (error.name or "").partition(".")[0]
    hint = "" if "pip install" in str(error) else f": pip install 'merlot-reserve[{_EXTRAS.get(package, 'train')}]'"
    return f"{error}{hint}"


def _without_prefix(message: str) -> str:
    """The parser's message without its usage line."""
    return message.strip().rpartition("error: ")[2]
