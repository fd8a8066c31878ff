"""The API reference, of a small package."""

from __future__ import annotations

import api_page
import pytest

PACKAGE = '''"""A package."""

from reserve.things import Base, Thing, make

__all__ = ["Base", "Thing", "make"]
'''
MODULE = '''"""Things."""

LIMIT = 3
"""Most things."""
UNEXPLAINED = 4


class Base:
    """A base."""


@dataclass(frozen=True)
class Thing(Base):
    """A thing (SPEC 1)."""

    size: int = 2
    """Metres."""
    _hidden: int = 0

    @property
    def area(self) -> int:
        """Square metres."""
        return self.size**2

    def _private(self) -> None:
        """Nothing."""


@torch.no_grad()
def make(
    size: int,
    *,
    name: str = "thing",
) -> Thing: return Thing()


def _private() -> None:
    """Nothing."""
'''


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "reserve").mkdir()
    (tmp_path / "reserve/__init__.py").write_text(PACKAGE)
    (tmp_path / "reserve/things.py").write_text(MODULE.replace("return Thing()", '"""Makes one."""'))
    monkeypatch.setattr(api_page, "MODULES", ("reserve", "reserve.things"))
    return tmp_path


def test_public_names_are_shown_where_they_first_appear(root):
    text = api_page.page(root)
    assert [line for line in text.splitlines() if line.startswith("##")] == [
        *("## reserve", "### Base", "### Thing", "#### Thing.area", "### make", "## reserve.things", "### LIMIT")
    ]
    assert "Described above: [`Base`](#base), [`Thing`](#thing), [`make`](#make)." in text


def test_signatures_are_as_written(root):
    text = api_page.page(root)
    assert "```python\n@dataclass(frozen=True)\nclass Thing(Base):\n    size: int = 2\n```\n" in text
    assert (
        '```python\ndef make(\n    size: int,\n    *,\n    name: str = "thing",\n) -> Thing:\n```\n\nMakes one.' in text
    )
    assert "```python\n@property\ndef area(self) -> int:\n```\n\nSquare metres." in text
    assert "```python\nLIMIT = 3\n```\n\nMost things." in text


def test_fields_and_bases_are_explained(root):
    text = api_page.page(root)
    assert "- `size`: Metres." in text
    assert "Inherits from [`Base`](#base)." in text


def test_a_public_function_needs_a_docstring(root):
    (root / "reserve/things.py").write_text(MODULE)
    with pytest.raises(ValueError, match=r"reserve\.things\.make, line \d+, is public and has no docstring"):
        api_page.page(root)


def test_an_export_needs_a_definition(root):
    (root / "reserve/__init__.py").write_text(PACKAGE.replace('"make"]', '"missing"]'))
    with pytest.raises(ValueError, match="reserve exports missing, but reserve neither defines nor imports it"):
        api_page.page(root)
