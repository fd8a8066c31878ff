"""Writes docs/benchmarks.md and the marked places in other pages from the results."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.report import asking, bars, by_machine, decoding_memory, reliability, resources, slower, steps, tables
from benchmarks.report.learning import page as learning
from benchmarks.report.plots import all_plots
from benchmarks.report.results import Case, Machine, load
from benchmarks.scaling import page as scaling
from benchmarks.scaling import table
from benchmarks.scaling.plot import draw_scaling_model
from benchmarks.shards import page as shards
from reserve_kernels.registry import OPS

ROOT = Path(__file__).parents[2]
PAGE = "docs/benchmarks.md"
RESOURCES_PAGE = "docs/kernels/resources.md"
SCALING_PAGE = "docs/scaling.md"
SHARDS_PAGE = "docs/twenty_million.md"
RELIABILITY_PAGE = "docs/reliability.md"
LEARNING_PAGE = "docs/learning.md"
MACHINES_PAGE = "docs/machines.md"
FIGURES = "docs/figures"
INDEX = f"{FIGURES}/index.json"
"""For each plot, a digest of the numbers that it was drawn from, and one of the file. A check cannot draw plots again:
their bytes depend on the version of the drawing library."""
HEAD = """# Benchmarks

`make bench-report` writes this page from [benchmarks/results](../benchmarks/results); `make test` fails if it is out of
date.

Every round runs each implementation once, in rotating order, in one process. The tables show medians and quartiles over
the rounds. Peers do the whole job (those called *less* skip what is named), and their results are compared with ours
before they are timed. On a GPU, times are by events, with inputs rotated or the L2 cache flushed. "Of the limit" is the
minimum time for the FLOPs and bytes of the job, at the rates of a matrix product and a copy measured in the same run,
divided by the median. Extra memory is the growth of the peak during the call, gradients included.

`make bench SAVE=1` measures this machine, and `make gpu` a GPU machine; see `python -m benchmarks --help`. A case on a
GPU is named after the card. The targets on a GPU are for an H100; the pages of [kernels](kernels/attention.md#bars)
derive them. [The training step](kernels/step.md) says where its time and memory go.
"""
SLOWER = f"""Cases in which the choice of `auto` has less than {slower.NOISE} of the speed of another implementation,
our own variants included. Implementations that do less than the whole job do not count.
"""


def pages(machines: list[Machine]) -> dict[str, str]:
    """The text of every generated page, by path."""
    texts = {PAGE: _page(machines), RESOURCES_PAGE: resources.page()}
    texts[SCALING_PAGE] = scaling.page(table.stored_sections())
    texts[SHARDS_PAGE] = shards.page(shards.stored())
    texts[RELIABILITY_PAGE] = reliability.page()
    texts[LEARNING_PAGE] = learning.page()
    by_machines = by_machine.stored()
    texts[MACHINES_PAGE] = by_machine.page(by_machines)
    places = {
        "measured bars": bars.measured_table(machines),
        f"bars of {steps.OP}": bars.table(machines, steps.OP),
        "memory of decoding": decoding_memory.text(decoding_memory.stored()),
        "time of asking": asking.text(asking.stored()),
        "presets of log_mel_spectrogram": by_machine.presets(by_machines),
        "sources of presets": by_machine.sources(),
        "drop-ins": by_machine.drop_ins(by_machines),
        f"variants of {steps.OP}": tables.step_variants(machines),
    }
    for op in (op.name for op in OPS):
        places[f"bars of {op}"] = bars.table(machines, op)
        places[f"figures of {op}"] = _op_figures(machines, op)
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        name = str(path.relative_to(ROOT))
        if name not in texts:
            text = path.read_text("utf-8")
            filled = _filled(text, places)
            if filled != text or "<!-- figures:" in text:
                texts[name] = filled
    return texts


def _filled(text: str, places: dict[str, str]) -> str:
    """`text` with everything between `<!-- figures: NAME -->` and `<!-- end -->` replaced."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(2)
        if name not in places:
            raise ValueError(f"no figures {name!r}; choose from {', '.join(places)}")
        return f"{match.group(1)}\n{places[name]}\n{match.group(3)}"

    return re.sub(r"(<!-- figures: (.+?) -->)\n.*?(<!-- end -->)", fill, text, flags=re.DOTALL)


def _page(machines: list[Machine]) -> str:
    parts = [HEAD, "## Targets\n", bars.table(machines), ""]
    parts += ["## Where another implementation is faster\n", SLOWER, slower.table(machines), ""]
    for machine in machines:
        parts += [f"## {machine.title}\n", tables.provenance(machine), ""]
        plots = {name: draw for name, _, draw in all_plots(machine)}
        for op in dict.fromkeys(case.op for case in machine.cases):
            stem = f"{machine.name}-{op.replace(' ', '-')}"
            parts += [f"### {op}\n"]
            parts += [
                f"![{op}, {kind}](figures/{stem}-{kind}.svg)\n"
                for kind in ("speed", "scaling", "memory")
                if f"{stem}-{kind}" in plots
            ]
            cases = [case for case in machine.cases if case.op == op]
            parts += ["<details><summary>Every figure</summary>\n", tables.op_table(cases), "\n</details>\n"]
    if not any(case.on_gpu for machine in machines for case in machine.cases):
        parts += ["## On a GPU\n", f"Speed on a GPU was {bars.NOT_MEASURED}.\n"]
    return "\n".join(parts).rstrip() + "\n"


def _op_figures(machines: list[Machine], op: str) -> str:
    """The op's table on each machine."""
    found = [(machine.title, [case for case in machine.cases if case.op == op]) for machine in machines]
    parts = [f"{title}:\n\n{tables.op_table(cases)}" for title, cases in found if cases]
    if not any(case.on_gpu for machine in machines for case in machine.cases if case.op == op):
        parts.append(f"On a GPU: {bars.NOT_MEASURED}.")
    return "\n\n".join(parts)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _of_cases(cases: list[Case]) -> str:
    """A digest of everything that a plot of these cases shows."""
    figures = [
        (case.group, name, timing.median, timing.info.get("peak_extra_bytes"), sorted(case.facts.items(), key=str))
        for case in cases
        for name, timing in case.timings.items()
    ]
    return digest(json.dumps(figures, default=str).encode())


def _plots(machines: list[Machine]) -> dict[str, tuple[str, Callable[[Path], None]]]:
    """For each plot's file, a digest of what it shows, and the function that draws it to a path."""
    plots: dict[str, tuple[str, Callable[[Path], None]]] = {
        f"{name}.svg": (_of_cases(cases), partial(draw, cases))
        for machine in machines
        for name, cases, draw in all_plots(machine)
    }
    curves = scaling.curves()
    plots[scaling.FIGURE] = digest(repr(curves).encode()), partial(draw_scaling_model, curves)
    if ways := decoding_memory.stored():
        plots[decoding_memory.FIGURE] = digest(json.dumps(ways).encode()), partial(decoding_memory.draw, ways)
    plots |= {name: (digest(of.encode()), draw) for name, (of, draw) in learning.plots().items()}
    return plots


def write(machines: list[Machine] | None = None, root: Path = ROOT) -> list[str]:
    """Writes pages and plots; returns what changed."""
    machines = load() if machines is None else machines
    changed = []
    for name, text in pages(machines).items():
        path = root / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            changed.append(name)
    folder = root / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    wanted = _plots(machines)
    old = _index(root)
    index = {}
    for name, (of, draw) in wanted.items():
        path = folder / name
        if old.get(name) != {"of": of, "file": digest(path.read_bytes()) if path.exists() else None}:
            with tempfile.NamedTemporaryFile(suffix=".svg") as temporary:
                draw(Path(temporary.name))
                path.write_bytes(Path(temporary.name).read_bytes())
            changed.append(f"{FIGURES}/{name}")
        index[name] = {"of": of, "file": digest(path.read_bytes())}
    for path in folder.glob("*.svg"):
        if path.name not in wanted:
            path.unlink()
            changed.append(f"{FIGURES}/{path.name}")
    (root / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    return changed


def _index(root: Path) -> dict[str, dict[str, str]]:
    path = root / INDEX
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def stale(machines: list[Machine] | None = None, root: Path = ROOT) -> list[str]:
    """Pages and plots that do not match the results, for example because someone edited them."""
    machines = load() if machines is None else machines
    wrong = [
        name
        for name, text in pages(machines).items()
        if not (root / name).exists() or (root / name).read_text("utf-8") != text
    ]
    index = _index(root)
    wanted = {name: of for name, (of, _) in _plots(machines).items()}
    present = {path.name: digest(path.read_bytes()) for path in (root / FIGURES).glob("*.svg")}
    names = sorted(wanted.keys() | present.keys() | index.keys())
    drawn = {name: {"of": wanted.get(name), "file": present.get(name)} for name in names}
    return wrong + [f"{FIGURES}/{name}" for name in names if index.get(name) != drawn[name]]
