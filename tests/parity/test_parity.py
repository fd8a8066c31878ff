"""The project against the reference's recorded numbers (../shared/golden), within the promised bounds."""

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


def test_page_lists_the_current_figures(measured: Callable[[str], list[Figure]]) -> None:
    """`make parity` regenerates it. The values may differ in their last digits, so they are not compared."""
    page, measurements = read_page(PAGE.read_text("utf-8")), row_keys({group: measured(group) for group in GROUPS})
    assert list(page) == list(measurements), "run make parity"
    for group, rows in measurements.items():
        assert page[group] == rows, f"{group}: run make parity"
