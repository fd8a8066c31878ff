"""Docstrings as Markdown, and citations of the specification as links."""

from __future__ import annotations

import pytest
from docstrings import indented_blocks, markdown
from links import anchor, cited_sections, spec_anchors, with_spec_links

ANCHORS = spec_anchors("# Title\n\n## 7. Joint sequences\n\n### 7.4 text2audio\n\n## 8. Objective\n")


def test_arguments_become_a_list():
    text = """Does it.

        Args:
            x, y: [pairs, dim], before
                normalisation.
            out: where to.

        Returns:
            [pairs], one
            a pair.
        """
    assert markdown(text) == (
        "Does it.\n\nArgs:\n\n- `x`, `y`: [pairs, dim], before normalisation.\n- `out`: where to.\n\n"
        "Returns: [pairs], one a pair."
    )


def test_an_example_becomes_code():
    assert markdown("Adds.\n\n    >>> 1 + 1\n    2\n\nEnd.") == "Adds.\n\n```python\n>>> 1 + 1\n2\n```\n\nEnd."


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a * b < c", r"a \* b \< c"), ("`a * b`", "`a * b`"), ("sets __all__", r"sets \__all\__"), ("x_y", "x_y")],
)
def test_only_backticks_mark_up(text, shown):
    assert markdown(text) == shown


def test_indented_blocks_are_found_outside_of_sections():
    assert indented_blocks("Title.\n\n    a = 1\n    b = 2\n\nArgs:\n    a: one.") == ["a = 1\nb = 2"]


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("7.9 Who attends to whom", "79-who-attends-to-whom"),
        ("`files.jsonl`", "filesjsonl"),
        ("See [data](data.md), now", "see-data-now"),
        ("reserve_kernels", "reserve_kernels"),
    ],
)
def test_anchors_are_those_of_github(heading, name):
    assert anchor(heading) == name


def test_citations_are_linked():
    assert with_spec_links("(SPEC 7, 8)", ANCHORS) == "([SPEC 7](spec.md#7-joint-sequences), [8](spec.md#8-objective))"
    assert with_spec_links("SPEC 7.4.", ANCHORS) == "[SPEC 7.4](spec.md#74-text2audio)."


def test_code_is_not_linked():
    code = "```python\n# SPEC 7\n```"
    assert with_spec_links(code, ANCHORS) == code


def test_every_number_of_a_citation_is_found():
    assert cited_sections("(SPEC 1, 2.3 and 7-9) SPEC 10. Not 11.") == ["1", "2.3", "7", "9", "10"]
