"""The Markdown pages of the repository, for the tests of this folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def page_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


class Block(NamedTuple):
    """A block of code: its page, its number on the page, and why it is not run, None if it is."""

    page: Path
    number: int
    code: str
    not_run: str | None

    @property
    def name(self) -> str:
        return f"{page_name(self.page)} {self.number}"


def code_blocks(language: str) -> list[Block]:
    """Blocks that begin with ``` and `language`; `<!-- not run: REASON -->` on the line before says why not."""
    pattern = rf"(?:^<!-- not run: (.+?) -->\n)?^```{language}\n(.*?)^```$"
    return [
        Block(page, number, code, reason or None)
        for page in PAGES
        for number, (reason, code) in enumerate(
            re.findall(pattern, page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        )
    ]


def without_code(text: str) -> str:
    """A page without its code: fenced, indented by four spaces, and in backticks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE))
