"""Plots as SVG files: speed against each peer with the machine's limit, scaling, memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.interleaved import OURS, limit_seconds
from benchmarks.report.results import Case, Machine
from benchmarks.report.tables import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS_COLOUR, INK, FAINT, LIMIT = "#1f6feb", "#333b46", "#d5dae1", "#c2410c"
PEER_COLOURS = (
    *("#64748b", "#94a3b8", "#0f766e", "#a16207", "#7c3aed", "#be185d"),
    *("#15803d", "#334155", "#0891b2", "#a3e635", "#f9a8d4"),
)
SCALED_BY = {"length": "tokens of a sequence", "clips": "clips of 5 s", "pairs": "pairs"}
"""The fact that varies in scaling cases, and its label."""


def all_plots(machine: Machine) -> Iterator[tuple[str, list[Case], Any]]:
    """Name, cases and function (cases, path) of each plot that the machine has results for."""
    for op in dict.fromkeys(case.op for case in machine.cases):
        cases = [case for case in machine.cases if case.op == op]
        stem = f"{machine.name}-{op.replace(' ', '-')}"
        if compared := [case for case in cases if case.name != "scaling" and len(case.timings) > 1]:
            yield f"{stem}-speed", compared, draw_speed
        if scaled := [case for case in cases if case.name == "scaling"]:
            yield f"{stem}-scaling", scaled, draw_scaling
        if weighed := [case for case in compared if case.facts.get("peak_extra_bytes")]:
            yield f"{stem}-memory", weighed, draw_memory


def figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches with `columns` axes side by side, which share their vertical scale."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "reserve", "svg.fonttype": "none", "font.size": 9, "axes.edgecolor": FAINT})
    pyplot.rcParams.update({"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK})
    drawn, axes = pyplot.subplots(1, columns, figsize=(width, height), layout="constrained", sharey=True, squeeze=False)
    for one in axes[0]:
        one.spines[["top", "right"]].set_visible(False)
    return drawn, list(axes[0])


def save(drawn: Figure, path: Path) -> None:
    from matplotlib import pyplot

    drawn.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(drawn)


def _bars(cases: list[Case], values: dict[tuple[str, str], tuple[float, str]]) -> tuple[Figure, Axes]:
    """Labelled horizontal bars, one for each implementation, grouped by case."""
    drawn, (axes,) = figure(7.4, 0.9 + sum(0.17 * len(case.timings) + 0.16 for case in cases))
    place, ticks = 0.0, []
    peers = list(dict.fromkeys(name for case in cases for name in case.timings if name != OURS))
    for case in cases:
        first = place
        for name in case.timings:
            if (case.group, name) not in values:
                continue
            value, text = values[case.group, name]
            colour = OURS_COLOUR if name == OURS else PEER_COLOURS[peers.index(name) % len(PEER_COLOURS)]
            known = axes.get_legend_handles_labels()[1]
            axes.barh(place, value, 0.9, color=colour, label=name if name not in known else None)
            axes.text(value, place, f" {text}", va="center", fontsize=7)
            place += 1
        ticks.append(((first + place - 1) / 2, case.label))
        place += 0.9
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.2, y=0.01)
    return drawn, axes


def draw_speed(cases: list[Case], path: Path) -> None:
    """Speed in percent of the machine's limit if it is known for all cases, and otherwise relative to ours."""
    limits = {case.group: limit_seconds(case.facts) for case in cases}
    counted = all(limits.values())
    values = {}
    for case in cases:
        for name, timing in case.timings.items():
            ratio = case.faster_than(name)
            text = "ours" if name == OURS else f"{ratio:.3g}x as long as ours"
            values[case.group, name] = (100 * (limits[case.group] or 0) / timing.median if counted else 1 / ratio, text)
    drawn, axes = _bars(cases, values)
    if counted:
        axes.axvline(100, color=LIMIT, linewidth=2, label="the machine's limit")
    axes.set_xlabel("percent of the speed that the machine allows" if counted else "speed relative to ours")
    drawn.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=7.5)
    save(drawn, path)


def draw_memory(cases: list[Case], path: Path) -> None:
    values = {
        (case.group, name): (peak / 1e6, size(peak))
        for case in cases
        for name, timing in case.timings.items()
        if (peak := timing.info.get("peak_extra_bytes"))
    }
    drawn, axes = _bars(cases, values)
    axes.set_xlabel("extra memory at the peak, MB (less is better)")
    drawn.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=7.5)
    save(drawn, path)


def draw_scaling(cases: list[Case], path: Path) -> None:
    drawn, (axes,) = figure(6.4, 3.4)
    by = next(name for name in SCALED_BY if name in cases[0].facts)
    names = list(dict.fromkeys(name for case in cases for name in case.timings))
    for name in names:
        points = sorted((case.facts[by], case.timings[name].median) for case in cases if name in case.timings)
        ours = name == OURS
        colour = OURS_COLOUR if ours else PEER_COLOURS[(names.index(name) - 1) % len(PEER_COLOURS)]
        width = 2.4 if ours else 1.3
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=name, linewidth=width, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted({case.facts[by] for case in cases}), [str(n) for n in sorted({c.facts[by] for c in cases})])
    axes.set_xlabel(SCALED_BY[by])
    axes.set_ylabel("seconds")
    axes.grid(color=FAINT, linewidth=0.5)
    axes.legend(frameon=False, fontsize=7.5)
    save(drawn, path)
