"""Configuration files and settings on the command line, for the commands that take them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reserve.config.load import RUN_CONFIG, check_names, config_file, preset_names, read_settings, unknown_section
from reserve.errors import UsageError
from reserve.train.run_state import launch_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def add_task_commands(
    parser: ArgumentParser,
    arguments: Sequence[str],
    tasks: Iterable[str],
    find: Callable[[str], Any],
    add: Callable[[ArgumentParser, Any, Sequence[str]], None],
) -> None:
    """Makes a command of each of `tasks`, whose class `find` returns and whose arguments `add` adds.

    If `arguments` begin with a task, only that one has its arguments: making those of all takes a while.
    """
    from jsonargparse import ArgumentParser

    subcommands = parser.add_subcommands(required=True, dest="task")
    names = list(tasks)
    chosen = arguments[0] if arguments and arguments[0] in names else None
    for name in names:
        task = find(name)
        help_text = (task.__doc__ or "").strip()
        own = ArgumentParser(description=help_text, exit_on_error=False)
        subcommands.add_subcommand(name, own, help=help_text.partition("\n")[0])
        if chosen in (name, None):
            add(own, task, arguments[1:] if chosen else [])


def named_options(arguments: Sequence[str], *options: str) -> dict[str, list[str]]:
    """What the command line gives for some options, before it is parsed: they decide the defaults of others."""
    named = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for option in options:
        named.add_argument(f"--{option}", action="append", default=[])
    return vars(named.parse_known_args(list(arguments))[0])


def add_settings(
    parser: ArgumentParser,
    arguments: Sequence[str],
    sections: Mapping[str, type],
    inputs: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    *,
    presets: bool = True,
) -> dict[str, Any]:
    """Adds --config, --resume and --SECTION.KEY for each section; their defaults are those of the files named, then
    those of `defaults`, sections by name. `presets` says whether --config takes the packaged configurations.

    Returns what the files say of `inputs`, names with their types. Raises ValueError naming the file or the setting
    that is wrong, UsageError where --resume names no run.
    """
    defaults = defaults or {}
    files = named_options(arguments, "config", "resume")
    if (run := run_to_continue(arguments)) is not None:
        files["resume"] = [str(run)]
    if not presets and (packaged := [name for name in files["config"] if name in preset_names()]):
        raise UsageError(
            f"--config {packaged[0]} holds settings of pretraining; for the sizes of a model give --sizes {packaged[0]}"
        )
    paths = [run_config(run) for run in files["resume"]] + [config_file(name) for name in files["config"]]
    settings = read_settings(paths, sections, inputs, defaults)
    check_setting_names(arguments, sections)
    names = f"{', '.join(preset_names())}, or a YAML file" if presets else "a YAML file"
    parser.add_argument("--config", action="append", help=f"{names}; settings given beside it override it")
    parser.add_argument("--resume", type=Path, help="a run's folder: resume it from its last checkpoint")
    parser.add_argument(
        "--auto_resume",
        action="store_true",
        help="resume the run in --out if there is one, else start it: for jobs that are queued again",
    )
    for name, section in sections.items():
        default = settings.get(name, defaults.get(name) or section())
        parser.add_argument(f"--{name}", type=section, default=default)
    return {name: value for name, value in settings.items() if name in inputs}


def run_to_continue(arguments: Sequence[str]) -> Path | None:
    """The run in --out, where the command line says to resume it; None where there is no run yet.

    Raises UsageError for --auto_resume without --out on the command line.
    """
    named = named_options(arguments, "out", "resume")
    automatic = "--auto_resume" in arguments
    if automatic and not named["out"] and not named["resume"]:
        raise UsageError("--auto_resume needs --out on the command line")
    run = Path(named["out"][-1]) if named["out"] else None
    if named["resume"] or run is None or not resumes(automatic, run):
        return None
    return run if (run / RUN_CONFIG).is_file() else None


def resumes(automatic: bool, run: Path) -> bool:
    """Whether a run in --out is resumed: with --auto_resume, or where torchrun --max-restarts starts the same command
    again after a failure, and that is what began the run."""
    if automatic or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return automatic
    return launch_of(run) == os.environ.get("TORCHELASTIC_RUN_ID", "")


def run_config(run: str) -> Path:
    path = Path(run) / RUN_CONFIG
    if not path.is_file():
        raise UsageError(f"--resume {run}: not a run's folder, since it has no {RUN_CONFIG}")
    return path


def check_setting_names(arguments: Sequence[str], sections: Mapping[str, type]) -> None:
    """Raises ValueError for a --SECTION.KEY whose section or key does not exist, naming what comes close."""
    for argument in arguments:
        name, dot, key = argument.partition("=")[0].removeprefix("--").partition(".")
        if not argument.startswith("--") or not dot:
            continue
        if name not in sections:
            raise ValueError(f"{argument}: {unknown_section(name, sections)}")
        check_names(sections[name], [key], name)
