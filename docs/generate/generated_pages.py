"""The pages of docs/ that are written from the code: `make docs` writes them, a test compares them."""

from __future__ import annotations

from pathlib import Path

import api_page
import configuration_page
from links import spec_anchors, with_spec_links

ROOT = Path(__file__).resolve().parents[2]


def pages() -> dict[str, str]:
    """Text by path."""
    anchors = spec_anchors((ROOT / "docs/spec.md").read_text("utf-8"))
    texts = {"docs/api.md": api_page.page(ROOT), "docs/configuration.md": configuration_page.page()}
    return {name: with_spec_links(text, anchors) for name, text in texts.items()}


def stale() -> list[str]:
    """The pages that differ from what the code gives, edited by hand included."""
    return [
        name for name, text in pages().items() if not (ROOT / name).exists() or (ROOT / name).read_text("utf-8") != text
    ]


if __name__ == "__main__":
    texts = pages()
    for name in stale():
        (ROOT / name).write_text(texts[name], "utf-8")
        print(f"wrote {name}")
