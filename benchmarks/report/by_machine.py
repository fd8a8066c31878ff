"""docs/machines.md, and the tables of docs/ops.md, from what `python -m reserve_kernels.bench` stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import threads_label
from benchmarks.report.results import RESULTS
from reserve_kernels.bench import report
from reserve_kernels.bench.interleaved import OURS
from reserve_kernels.bench.report import markdown
from reserve_kernels.log_mel import PRESETS

FOLDER = "bench"
"""In a machine's folder of results."""
PRESETS_BAR = 5.0
"""How many times as fast as its original a preset must be on a CPU; kaldi-native-fbank need only not be faster."""
NATIVE_FBANK = "kaldi-native-fbank"
HEAD = """# Figures by machine

`make bench-report` writes this page from what

```sh
python -m reserve_kernels.bench   # --help: one op, a number of threads, a GPU
```

stored on each machine. It needs the installed package alone, and compares with whatever else is installed: each round
runs every implementation in turn, in rotating order, after their results were compared. Where a section says so, a
round repeats one call, whose input is then in the cache, for that long after a rest: idle threads of PyTorch slow down
what runs next for a few milliseconds. Times are medians; "ours is faster by" is the other's median over ours.

To add a machine: install the wheel and the peers, run the command on an idle machine, and put its files into
`benchmarks/results/MACHINE/bench/`.
"""
NOT_MEASURED = "Not measured: `python -m reserve_kernels.bench`."

Stored = Mapping[str, Any]


def stored(folder: Path = RESULTS) -> dict[str, list[Stored]]:
    """By machine's folder, its results."""
    found: dict[str, list[Stored]] = {}
    for path in sorted(folder.glob(f"*/{FOLDER}/*.json")):
        found.setdefault(path.parents[1].name, []).append(json.loads(path.read_text("utf-8")))
    return found


def page(machines: Mapping[str, list[Stored]]) -> str:
    """The text of docs/machines.md."""
    parts = [HEAD]
    for results in machines.values():
        machine = results[0]["machine"]
        name = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
        parts.append(f"## {name}\n")
        for result in results:
            parts += [
                f"### {result['op']}\n",
                f"{result['date'][:10]}, {_loops(result)}; {report.summary(result['machine'])}.\n",
                f"{report.markdown(report.COLUMNS, [report.cells(row) for row in result['rows']])}\n",
            ]
    return "\n".join(parts).rstrip() + "\n"


def _loops(result: Stored) -> str:
    """How the calls of a round were timed."""
    if "loop_seconds" not in result:
        return "interleaved single calls"
    return f"interleaved loops of {1e3 * result['loop_seconds']:g} ms after {1e3 * result['rest_seconds']:g} ms of rest"


def _newest(machines: Mapping[str, list[Stored]], op: str) -> Stored | None:
    """The last result of an op on a CPU."""
    found = [r for results in machines.values() for r in results if r["op"] == op and r["device"] == "cpu"]
    return max(found, key=lambda result: result["date"], default=None)


def presets(machines: Mapping[str, list[Stored]]) -> str:
    """Each preset of log_mel_spectrogram against its original, with the bar."""
    result = _newest(machines, "log_mel_spectrogram")
    if result is None:
        return NOT_MEASURED
    rows = result["rows"]
    table = _side_by_side(rows, "preset")
    ratios = {
        (row["group"], row["case"], row["threads"], row["implementation"]): row["ours_is_faster_by"]
        for row in rows
        if "seconds" in row and row["implementation"] != OURS
    }
    missed = [
        f"{group}, {case}, {threads_label(threads)} against {peer}: {ratio:.2f}"
        for (group, case, threads, peer), ratio in ratios.items()
        if ratio < (1.0 if peer == NATIVE_FBANK else PRESETS_BAR)
    ]
    verdict = f"Missed: {'; '.join(missed)}." if missed else "All are met."
    return (
        f"Measured on {result['date'][:10]} with `python -m reserve_kernels.bench log_mel_spectrogram` on "
        f"{result['machine']['cpu']}, {result['machine']['cores']} cores: one clip of\nnoise, medians of "
        f"{max(row.get('rounds', 0) for row in rows)} {_loops(result)}. The bar is {PRESETS_BAR:g}x the original, "
        f"and for kaldi-native-fbank 1x. {verdict}\n\n{table}"
    )


def drop_ins(machines: Mapping[str, list[Stored]]) -> str:
    """Each module of reserve_kernels.compat against its original."""
    result = _newest(machines, "drop_in")
    if result is None:
        return NOT_MEASURED
    return (
        f"Measured on {result['date'][:10]} with `python -m reserve_kernels.bench drop_in` on "
        f"{result['machine']['cpu']},\n{result['machine']['cores']} cores: medians of {_loops(result)}.\n\n"
        f"{_side_by_side(result['rows'], 'in place of')}"
    )


def _side_by_side(rows: Iterable[Mapping[str, Any]], head: str) -> str:
    """A row for each case and peer, with the peer's time, ours and their ratio for each number of threads."""
    threads = sorted({row["threads"] for row in rows})
    cases: dict[tuple[str, str], dict[tuple[str, int], Mapping[str, Any]]] = {}
    for row in rows:
        cases.setdefault((row["group"], row["case"]), {})[row["implementation"], row["threads"]] = row
    lines = []
    for (group, case), found in cases.items():
        for peer in dict.fromkeys(name for name, _ in found if name != OURS):
            cells = []
            for count in threads:
                theirs, ours = found.get((peer, count)), found.get((OURS, count))
                if theirs is None or ours is None or "seconds" not in theirs:
                    cells += ["", "", ""]
                else:
                    ratio = f"**{theirs['ours_is_faster_by']:.1f}x**"
                    cells += [report.duration(theirs["seconds"]), report.duration(ours["seconds"]), ratio]
            if any(cells):
                lines.append((group, case, peer, *cells))
    columns = [head, "", "original"]
    for count in threads:
        columns += [f"its time, {threads_label(count)}", "ours", "faster by"]
    return markdown(tuple(columns), lines)


def sources() -> str:
    """The presets and what computes the same."""
    return markdown(("preset", "computes the same as"), [(f"`{name}`", p.source) for name, p in PRESETS.items()])
