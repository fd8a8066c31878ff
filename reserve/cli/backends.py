"""Show which implementations of the ops can run here, which are picked, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    pass


def run(options: Namespace) -> None:
    from reserve_kernels import backends

    print(backends())
