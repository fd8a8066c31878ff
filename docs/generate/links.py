"""Anchors of headings, and citations of the specification as links."""

from __future__ import annotations

import re

_NUMBER = r"\d+(?:\.\d+)?"
_CITATION = re.compile(rf"SPEC {_NUMBER}(?:(?:, | and |-){_NUMBER})*")


def anchor(heading: str) -> str:
    """What GitHub calls the place of a heading, the first of its name on the page."""
    plain = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading.replace("`", ""))
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def spec_anchors(spec: str) -> dict[str, str]:
    """The anchor of each numbered section of the specification, whose text is `spec`."""
    headings = re.findall(rf"^#+ (({_NUMBER})\.? .*)$", spec, flags=re.MULTILINE)
    return {number: anchor(heading) for heading, number in headings}


def cited_sections(text: str) -> list[str]:
    """The numbers in citations such as "SPEC 1, 2" and "SPEC 7.4"."""
    return [number for citation in _CITATION.findall(text) for number in re.findall(_NUMBER, citation)]


def with_spec_links(text: str, anchors: dict[str, str]) -> str:
    """A page of docs/ whose citations of the specification, outside of code, are links."""

    def link(found: re.Match[str]) -> str:
        target = f"(spec.md#{anchors[found.group(2)]})"
        return f"[{found.group(1) or ''}{found.group(2)}]{target}"

    def link_all(found: re.Match[str]) -> str:
        return re.sub(rf"(SPEC )?({_NUMBER})", link, found.group())

    prose_and_code = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _CITATION.sub(link_all, part) for part in prose_and_code)
