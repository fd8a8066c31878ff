"""The plot and the table of memory by decoder, from what benchmarks.decoding_memory stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.decoding_memory import FILE, SETTLED, growth
from benchmarks.report.plots import FAINT, OURS_COLOUR, PEER_COLOURS, figure, save
from benchmarks.report.results import RESULTS
from benchmarks.report.tables import size
from reserve_kernels.bench.report import markdown

FIGURE = "decoding-memory.svg"
NOT_MEASURED = "Not measured."

Ways = Mapping[str, Mapping[str, Any]]


def stored(folder: Path = RESULTS) -> Ways:
    """The samples of each way on the first machine that has any."""
    for machine in sorted(folder.iterdir()):
        if (path := machine / FILE).exists():
            return json.loads(path.read_text("utf-8"))["ways"]
    return {}


def text(ways: Ways) -> str:
    """The plot and a row for each decoder."""
    measured = {way: samples for way, samples in ways.items() if "missing" not in samples}
    if not measured:
        return NOT_MEASURED
    rows = [
        (
            way,
            f"{len(samples['resident']) * samples['every']:,}",
            size(max(samples["resident"])),
            size(max(samples["proportional"])),
            _signed(growth(dict(samples))),
        )
        for way, samples in measured.items()
    ]
    head = ("decoder", "clips", "resident at most", "proportional at most", f"growth after {SETTLED:,} clips")
    missing = [f"{way} was not measured: {samples['missing']}" for way, samples in ways.items() if "missing" in samples]
    plot = f"![memory of decoding by the number of clips](figures/{FIGURE})"
    return "\n\n".join([plot, markdown(head, rows), *missing])


def _signed(value: int) -> str:
    return ("−" if value < 0 else "+") + size(abs(value))


def draw(ways: Ways, path: Path) -> None:
    """Resident memory of each decoder's process, by clips decoded."""
    drawn, (axes,) = figure(7.4, 3.4)
    colours = (OURS_COLOUR, *PEER_COLOURS[::2])
    for (way, samples), colour in zip(ways.items(), colours, strict=False):
        if "missing" not in samples:
            notes = samples["resident"]
            clips = [(place + 1) * samples["every"] for place in range(len(notes))]
            axes.plot(clips, [note / 1e6 for note in notes], color=colour, label=way, linewidth=1.4)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clips decoded")
    axes.set_ylabel("resident memory, MB")
    axes.grid(color=FAINT, linewidth=0.5)
    drawn.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=7.5)
    save(drawn, path)
