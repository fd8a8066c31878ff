"""Convert weights between the official format (.msgpack), safetensors folders and checkpoints of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("source", type=Path, help="an official checkpoint, or a folder with model.safetensors")
    parser.add_argument("target", type=Path, help="NAME.msgpack for the official format, else a folder; must not exist")
    parser.add_argument("--config", type=str, help="for an official source: base, large or a YAML file")


def run(options: Namespace) -> None:
    from reserve.checkpoint.convert import convert

    convert(options.source, options.target, options.config)
