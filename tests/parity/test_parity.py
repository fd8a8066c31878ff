"""The reference's recorded numbers (../shared/golden) against ours. Bounds are those the project promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.parity.figures import Figure
from tests.parity.golden import Golden
from tests.parity.groups import GROUPS
from tests.parity.report import PAGE, read_page, row_keys


@pytest.fixture(scope="module")
def measured(shared_dir) -> Callable[[str], list[Figure]]:
    """The figures of a group, measured once."""
    golden = Golden(shared_dir / "golden")
    return cache(lambda group: GROUPS[group](golden))


@pytest.mark.parametrize("group", GROUPS)
def test_every_figure_keeps_its_bound(group: str, measured: Callable[[str], list[Figure]]) -> None:
    figures = measured(group)
    assert figures
    broken = [f"{f.what}: {f.measure} {f.value:.3g}, bound {f.bound:.3g}" for f in figures if not f.holds]
    assert not broken, "\n".join(broken)


def test_every_parameter_has_its_gradient_compared(measured: Callable[[str], list[Figure]]) -> None:
    assert len(measured("Gradients")) == 129


def test_page_shows_the_figures_there_are(measured: Callable[[str], list[Figure]]) -> None:
    """`make parity` writes it anew. Its numbers may differ in their last digits, so they are not compared."""
    shown, there = read_page(PAGE.read_text("utf-8")), row_keys({group: measured(group) for group in GROUPS})
    assert list(shown) == list(there), "run make parity"
    for group, rows in there.items():
        assert shown[group] == rows, f"{group}: run make parity"
