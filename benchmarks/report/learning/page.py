"""The text of docs/learning.md and the plots that it shows, from stored results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.learning.finetuning import FILE as FINETUNING_FILE
from benchmarks.learning.objectives import FILE as OBJECTIVES_FILE
from benchmarks.learning.sounds import FILE as SOUNDS_FILE
from benchmarks.report.learning import finetuning, objectives, sounds
from benchmarks.report.results import RESULTS

HEAD = """# Does it learn?

`make bench-report` writes this page from [benchmarks/results](../benchmarks/results); `make test` fails if it is out of
date. `make learning` measures it anew. The models are tiny and the videos are made by `reserve demo-data`: this tests
that the objective and the code do what the paper (arXiv 2201.02639) says of them, not how well the released models do.
What did not help is shown too. Where there is no difference, up to one comparison in twenty shows one by chance.
"""


class Study(NamedTuple):
    """A part of the page: where its result is stored, its section of (machine, result), and its plot, if it has one."""

    file: str
    section: Callable[[str, Mapping[str, Any]], str]
    draw: Callable[[Mapping[str, Any], Path], None] | None
    title: str
    command: str


STUDIES = {
    "objectives": Study(
        OBJECTIVES_FILE,
        objectives.section,
        objectives.draw,
        "Objectives",
        "python -m benchmarks.learning.objectives --videos FOLDER --save",
    ),
    "finetuning": Study(
        FINETUNING_FILE,
        finetuning.section,
        None,
        "What comes after",
        "python -m benchmarks.learning.finetuning --videos FOLDER --save",
    ),
    "sounds": Study(
        SOUNDS_FILE,
        sounds.section,
        None,
        "Real sounds",
        "python -m benchmarks.learning.sounds --esc10 FOLDER --fsdd FOLDER --save",
    ),
}


def _stored(study: Study, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.glob(f"*/{study.file}")):
        yield path.parent.name, json.loads(path.read_text("utf-8"))


def page(folder: Path = RESULTS) -> str:
    """The page's text."""
    parts = [HEAD]
    for name, study in STUDIES.items():
        found = list(_stored(study, folder))
        if not found:
            parts.append(f"## {study.title}\n\nNot measured: `{study.command}`.\n")
        for machine, result in found:
            plot = f"![{study.title}]({_figure_link(machine, name)})\n" if study.draw else ""
            parts += [study.section(machine, result), plot, _origin(result)]
    return "\n".join(part for part in parts if part)


def _origin(result: Mapping[str, Any]) -> str:
    """Where the figures come from."""
    runs = [run["provenance"] for run in result.get("runs", [])] + [result["provenance"]]
    commits = sorted({f"{one['commit'][:10]}{' + changes' if one['changed'] else ''}" for one in runs})
    own = result["provenance"]
    versions = ", ".join(f"{name} {own['versions'][name]}" for name in ("torch", "numpy") if name in own["versions"])
    threads = f"{own['cores']} cores, one thread a run"
    days = sorted({one["time"][:10] for one in runs})
    when = " to ".join(dict.fromkeys((days[0], days[-1])))
    return f"Measured {when} on {own['cpu']} ({threads}), commit {', '.join(commits)}, {versions}.\n"


def figure_name(machine: str, study: str) -> str:
    """The plot's file."""
    return f"learning-{study}-{machine}.svg"


def _figure_link(machine: str, study: str) -> str:
    return f"figures/{figure_name(machine, study)}"


def plots(folder: Path = RESULTS) -> dict[str, tuple[str, Callable[[Path], None]]]:
    """For each plot's file, what it is drawn from as text, and the function that draws it to a path."""
    return {
        figure_name(machine, name): (json.dumps(result, sort_keys=True), partial(study.draw, result))
        for name, study in STUDIES.items()
        if study.draw
        for machine, result in _stored(study, folder)
    }
