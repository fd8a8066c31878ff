"""Train a vocabulary in the released layout, as the shipped one was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("out", type=Path, help="the tokenizers JSON to write")


def run(options: Namespace) -> None:
    from reserve.synthetic.train_tokenizer import train_tokenizer

    train_tokenizer(options.out)
