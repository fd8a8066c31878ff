"""Curves embedded in an HTML page as inline SVG."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from reserve.tasks.pretrain.pictures import FAINT, INK, new_axes, svg_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE_COLOURS = ("#0b5cad", "#c2410c", "#15803d", "#7c3aed")
MAX_POINTS = 500


def curves_svg(
    title: str,
    steps: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    chance: Mapping[str, float],
    *,
    from_zero: bool = False,
) -> Markup:
    """Curves over training steps by label, each with its chance level as a dashed line if `chance` has one.

    A single curve is named by the title alone. `from_zero` begins the values' axis at 0.
    """
    figure, axes = new_axes(4.6, 3.0)
    drawn_levels = set()
    for colour, (label, values) in zip(LINE_COLOURS, lines.items(), strict=False):
        numbers = np.asarray(values, dtype=float)
        # A plot has no room for more.
        numbers = np.where(np.abs(numbers) <= np.finfo(np.float32).max, numbers, np.nan)
        x, y = thinned(np.asarray(steps, dtype=float), numbers)
        axes.plot(x, y, color=colour, linewidth=1.6, label=label, marker="o" if len(x) < 3 else None, markersize=4)
        level = chance.get(label)
        if level is not None and level not in drawn_levels:
            drawn_levels.add(level)
            shared = sum(other == level for other in chance.values()) > 1
            axes.axhline(level, color=INK if shared else colour, linewidth=1, linestyle=(0, (4, 3)))
    if drawn_levels:
        axes.plot([], [], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="chance")
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    if from_zero:
        axes.set_ylim(bottom=0)
    if len(lines) > 1 or drawn_levels:
        # Where it must lie on curves, it covers them, so that both can be read.
        axes.legend(framealpha=0.85, edgecolor="none", fontsize=10, loc="best")
    return _inline(figure, title)


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages both arrays over runs of consecutive points, so that at most MAX_POINTS remain."""
    size = -(-len(x) // MAX_POINTS) or 1
    bins = np.arange(0, len(x), size)
    counts = np.diff(np.append(bins, len(x)))
    return (np.add.reduceat(x, bins) / counts, np.add.reduceat(y, bins) / counts) if len(x) else (x, y)


def _inline(figure: Figure, title: str) -> Markup:
    """A figure as an inline <svg> that refers to nothing outside the page."""
    # Group ids would repeat across figures, and nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", svg_text(figure, title))
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    attributes = Markup('<svg role="img" aria-label="{}"').format(title)
    return Markup(re.sub(r"<svg", lambda _: attributes, text, count=1))
