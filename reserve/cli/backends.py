"""Show which back ends of the ops and which video decoders can run here, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    pass


def run(options: Namespace) -> None:
    from reserve.data.decode import decoder_table
    from reserve_kernels import backends

    print(f"{backends()}\n\n{decoder_table()}")
