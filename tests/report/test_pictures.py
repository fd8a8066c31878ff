"""Curves show their values and are self-contained."""

from __future__ import annotations

import re

import numpy as np
import pytest

from reserve.report.pictures import MAX_POINTS, curves_svg, thinned


def test_lines_are_named_and_each_chance_level_is_drawn():
    lines = {"a <b>": [2.0, 1.0, 0.5], "c": [3.0, float("nan"), 1.0]}
    svg = curves_svg("A “title” & more", [1, 2, 3], lines, {"a <b>": 2.5, "c": 3.5})
    assert "a &lt;b&gt;" in svg
    assert 'aria-label="A “title” &amp; more"' in svg
    assert svg.count("stroke-dasharray") >= 2 + 1
    assert "chance" in svg


def test_a_single_curve_needs_no_legend():
    assert "loss" not in curves_svg("t", [1, 2], {"loss": [2.0, 1.0]}, {})
    assert "loss" in curves_svg("t", [1, 2], {"loss": [2.0, 1.0]}, {"loss": 3.0})


def test_an_axis_can_begin_at_zero():
    lines = {"a": [100.0, 101.0]}
    assert re.search(r">0</text>", curves_svg("t", [1000, 2000], lines, {}, from_zero=True).replace("0.0<", "0<"))
    assert not re.search(r">0</text>", curves_svg("t", [1000, 2000], lines, {}))


def test_large_steps_are_grouped():
    assert re.search(r">[1-9]00,000</text>", curves_svg("t", [0, 750_000], {"a": [1.0, 2.0]}, {}))


@pytest.mark.parametrize("steps", [[], [5]], ids=["no step", "one step"])
def test_few_steps_are_drawn_too(steps):
    assert curves_svg("few", steps, {"loss": [1.0] * len(steps)}, {}).startswith("<svg")


def test_the_same_picture_is_the_same_text():
    one, two = (curves_svg("t", [1, 2], {"loss": [2.0, 1.0]}, {"loss": 3.0}) for _ in range(2))
    assert one == two


def test_long_curves_are_averaged_and_short_ones_kept():
    x = np.arange(4 * MAX_POINTS + 1.0)
    thin_x, thin_y = thinned(x, 2 * x)
    assert len(thin_x) <= MAX_POINTS
    np.testing.assert_allclose(thin_y, 2 * thin_x)
    assert thin_x[0] == x[:5].mean()
    assert thin_x[-1] == x[-1]
    np.testing.assert_array_equal(thinned(x[:MAX_POINTS], x[:MAX_POINTS])[0], x[:MAX_POINTS])


def test_a_picture_refers_to_nothing_outside():
    svg = curves_svg("t", [1, 2], {"loss": [2.0, 1.0]}, {"loss": 3.0})
    assert "http" not in svg
    assert "xmlns" not in svg
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', svg))
    names = set(re.findall(r'\bid="([^"]*)"', svg))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= names
