"""Write a run's report.html from its files, at any time, also while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("run", type=Path, help="the folder of a run of `reserve pretrain` or `reserve finetune`")


def run(options: Namespace) -> None:
    from reserve.report import write_report

    print(write_report(options.run))
