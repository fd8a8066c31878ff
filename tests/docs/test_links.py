"""Links lead to files and sections that exist, and citations to sections of the specification."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from links import anchor, cited_sections, spec_anchors

from tests.docs.pages import PAGES, ROOT, page_name, without_code

CITING = [
    path
    for folder in ("reserve", "kernels", "csrc", "benchmarks", "examples", "tests", "docs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".md", ".yaml"}
    and ROOT / "tests/docs" not in path.parents
]


@cache
def anchors(path: Path) -> frozenset[str]:
    """The places that a page's headings make; a name used again gets a number."""
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        name = anchor(heading)
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return frozenset(found)


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text("utf-8"))):
        file, _, section = link.partition("#")
        if file.startswith(("http:", "https:")):
            continue
        target = page.parent / file if file else page
        if not target.exists() or (section and section not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# One `thing`\n\n# One `thing`\n\n```sh\n# no heading\n```\n")
    good = "[a](#here) [b](other.md) [c](other.md#one-thing-1) [d](https://example.org/x#y) `[e](code.md)`"
    bad = "[f](missing.md) [g](#there) [h](other.md#no-heading)"
    page.write_text(f"## Here\n\n{good} {bad}\n")
    assert broken_links(page) == ["missing.md", "#there", "other.md#no-heading"]


def test_citations_name_sections_of_the_specification():
    sections = spec_anchors((ROOT / "docs/spec.md").read_text("utf-8"))
    cited = {(page_name(path), number) for path in CITING for number in cited_sections(path.read_text("utf-8"))}
    assert len(cited) > 50
    assert sorted((path, number) for path, number in cited if number not in sections) == []
