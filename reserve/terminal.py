"""Text for terminals: names of videos and files come from anywhere, and must not steer one."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text with escapes such as \\x1b and \\n in place of characters that cannot be printed."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable_lines(text: str) -> str:
    """`printable` for text of several lines."""
    return "\n".join(map(printable, text.split("\n")))
