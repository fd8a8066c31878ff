"""Commands that pages show have the options and targets they use."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache

import pytest

from reserve.cli.app import COMMANDS, build_parser
from reserve.config import SECTIONS, FinetunedConfig
from tests.docs.pages import PAGES, ROOT, code_blocks, page_name

LINES = sorted(
    {
        (block.name, line.partition("#")[0].strip())
        for block in code_blocks("sh")
        for line in block.code.replace("\\\n", " ").splitlines()
    }
)
RESERVE = [(page, line) for page, line in LINES if re.search(r"(?:^|-m )reserve(?:\.cli)? ", line)]
MAKE = [(page, line) for page, line in LINES if line.startswith("make ")]
TARGETS = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)

OTHER_PROGRAMS = {
    *("--nnodes", "--rdzv-endpoint", "--max-restarts", "--signals-to-handle", "--shutdown-timeout"),  # torchrun's
    *("--signal", "--kill-on-bad-exit", "--gpus-per-task"),  # Slurm's
}


@cache
def options(command: str) -> frozenset[str]:
    """The options that a command's help lists, and that of its subcommands."""
    parser = build_parser([])[1][command]
    subcommands = getattr(parser, "_subcommands_action", None)
    parsers = [parser, *(subcommands.choices.values() if subcommands else ())]
    return frozenset(re.findall(r"(?<![\w-])--[\w.]+", "\n".join(each.format_help() for each in parsers)))


def test_every_command_but_helpers_is_shown():
    shown = {re.search(r"reserve(?:\.cli)? ([\w-]+)", line).group(1) for _, line in RESERVE}  # type: ignore[union-attr]
    assert {"pretrain", "evaluate", "convert", "backends"} <= shown <= set(COMMANDS)


@pytest.mark.parametrize(("page", "line"), RESERVE, ids=[page for page, _ in RESERVE])
def test_options_exist(page, line):
    command, _, rest = re.split(r"(?:^|-m )reserve(?:\.cli)? ", line)[1].partition(" ")
    used = re.findall(r"(?<!\S)--[\w.-]+", rest)
    assert [option for option in used if option not in options(command)] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_options_in_the_text_exist(page):
    """What begins with -- in backticks is an option of some command, or of a program that the page names."""
    code = " ".join(re.findall(r"`(--[^`]+)`", page.read_text("utf-8")))
    known = {"--SECTION.KEY", *OTHER_PROGRAMS, *(option for command in COMMANDS for option in options(command))}
    assert sorted(set(re.findall(r"(?<!\S)--[\w.-]+", code)) - known) == []


def test_options_that_do_not_exist_are_found():
    assert "--train.batch_size" in options("pretrain")
    assert "--train.batch_sizes" not in options("pretrain")


@pytest.mark.parametrize(("page", "line"), MAKE, ids=[page for page, _ in MAKE])
def test_make_targets_exist(page, line):
    targets = [word for word in line.split()[1:] if "=" not in word]
    assert [target for target in targets if target not in " ".join(TARGETS).split()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_settings_exist(page):
    """What a page calls --SECTION.KEY, in code or in text, is a setting."""
    used = re.findall(rf"--({'|'.join(SECTIONS)})\.(\w+)", page.read_text("utf-8"))
    sections = [*SECTIONS.items(), ("model", FinetunedConfig)]
    known = {(section, field.name) for section, kind in sections for field in fields(kind)}
    assert sorted(set(used) - known) == []
