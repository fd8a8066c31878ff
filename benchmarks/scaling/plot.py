"""The plot of docs/scaling.md: examples a second by number of GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.report.plots import FAINT, INK, LIMIT, OURS_COLOUR, figure, save

COLOURS = {"base": OURS_COLOUR, "large": LIMIT}


@dataclass(frozen=True)
class Curve:
    """Modelled examples/s of a model, by number of GPUs, at a batch and on a network."""

    batch: int
    model: str
    network: str
    style: str
    gpus: tuple[int, ...]
    rates: tuple[float, ...]

    @property
    def label(self) -> str:
        return f"{self.model}, {self.network}"


def draw_scaling_model(curves: list[Curve], path: Path) -> None:
    """One plot a batch. A thin line goes on from a model's first point as if each GPU added as much."""
    batches = sorted({curve.batch for curve in curves})
    drawn, plots = figure(7.4, 3.9, len(batches))
    for batch, axes in zip(batches, plots, strict=True):
        mine = [curve for curve in curves if curve.batch == batch]
        for model in dict.fromkeys(curve.model for curve in mine):
            first = next(curve for curve in mine if curve.model == model)
            ideal = [first.rates[0] * gpus / first.gpus[0] for gpus in first.gpus]
            axes.plot(first.gpus, ideal, color=INK, linewidth=0.6, label="as 8 GPUs, times their number")
        for curve in mine:
            line, colour = curve.style, COLOURS[curve.model]
            axes.plot(curve.gpus, curve.rates, line, color=colour, label=curve.label, linewidth=1.6, markersize=3.5)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(mine[0].gpus, [str(gpus) for gpus in mine[0].gpus])
        axes.minorticks_off()
        axes.set_title(f"batch {batch}", fontsize=9)
        axes.set_xlabel("GPUs")
        axes.grid(color=FAINT, linewidth=0.5)
    plots[0].set_ylabel("examples/s, modelled")
    named = dict(zip(*reversed(plots[0].get_legend_handles_labels()), strict=True))
    drawn.legend(named.values(), named.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=7.5)
    save(drawn, path)
