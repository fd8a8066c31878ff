"""Show shards as a page."""

from __future__ import annotations


def add_arguments(parser, arguments) -> None:
    pass
