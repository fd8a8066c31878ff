"""Docstrings as Markdown."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator

_LISTS = ("Args:", "Raises:")


def markdown(docstring: str | None) -> str:
    """Paragraphs as they are, what `Args:` and `Raises:` hold as lists, indented examples as code."""
    return "\n\n".join(_blocks(inspect.cleandoc(docstring or "")))


def inline(docstring: str) -> str:
    """A docstring as one line of a list or a table."""
    return _escaped(" ".join(docstring.split()))


def indented_blocks(docstring: str) -> list[str]:
    """What stands indented by four spaces or more after an empty line, outside of sections such as `Args:`."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(docstring))
    return [textwrap.dedent(part) for part in paragraphs if all(line.startswith("    ") for line in part.splitlines())]


def _blocks(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text) if text else []:
        title, _, rest = paragraph.partition("\n")
        if title == "Returns:":
            yield f"Returns: {inline(rest)}"
        elif title in _LISTS:
            yield title
            yield "\n".join(_entries(textwrap.dedent(rest)))
        elif paragraph.startswith("    >>> "):
            yield f"```python\n{textwrap.dedent(paragraph)}\n```"
        elif paragraph.startswith("    "):
            yield f"```text\n{textwrap.dedent(paragraph)}\n```"
        else:
            yield _escaped(paragraph)


def _entries(text: str) -> Iterator[str]:
    """Each entry, a line and what is indented below it, as an item of a list."""
    for entry in re.split(r"\n(?! )", text):
        name, colon, meaning = " ".join(entry.split()).partition(": ")
        if colon and re.fullmatch(r"[\w*., ]+", name):
            names = ", ".join(f"`{part.strip()}`" for part in name.split(","))
            yield f"- {names}: {_escaped(meaning)}"
        else:
            yield f"- {_escaped(name + colon + meaning)}"


def _escaped(text: str) -> str:
    """Text in which only backticks mark anything up."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*<]|__)", r"\\\1", part) for part in parts)
