"""The tables of docs/asking.md, from what benchmarks.asking stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.asking import FILE, ROUNDS
from benchmarks.report.results import RESULTS
from reserve_kernels.bench.report import markdown

NOT_MEASURED = "Not measured: `python -m benchmarks.asking --video FILE --save`."
NAMES = {"tiny": "`tiny`, the demo's model, 6 million parameters", "base": "`base`, 316 million"}


def stored(folder: Path = RESULTS) -> Mapping[str, Any] | None:
    """The result of the first machine that has one."""
    for path in sorted(folder.glob(f"*/{FILE}")):
        return json.loads(path.read_text("utf-8"))
    return None


def text(found: Mapping[str, Any] | None) -> str:
    """A table of the presets and one of searching."""
    if found is None:
        return NOT_MEASURED
    own, models, searches = found["provenance"], found["models"], found["searches"]
    rows = [
        ("index, a minute of video", *(f"{model['index_s']:.2g} s" for model in models.values())),
        ("ask, a minute of video", *(f"{model['ask_s']:.2g} s" for model in models.values())),
        ("peak memory of the process", *(f"{model['peak_gb']:.1f} GB" for model in models.values())),
    ]
    asked = markdown(("", *(NAMES[name] for name in models)), rows)
    first = next(iter(searches.values()))
    columns = tuple("1 thread" if threads == "1" else f"{threads} threads" for threads in searches)
    rows = [
        ("read the index, once", *(f"{search['read_s']:.1f} s" for search in searches.values())),
        (
            "a query (quartiles)",
            *(
                f"{search['query_ms']:.0f} ms ({search['query_ms_low']:.0f} to {search['query_ms_high']:.0f})"
                for search in searches.values()
            ),
        ),
        ("peak memory", *(f"{search['peak_gb']:.1f} GB" for search in searches.values())),
    ]
    searched = markdown((f"{first['moments']:,} moments of {first['hidden']} numbers", *columns), rows)
    video = next(iter(models.values()))
    where = (
        f"Measured on {own['time'][:10]} with `python -m benchmarks.asking` on {own['cores']} cores ({own['cpu']}),\n"
        f"in float32 with random weights. The first table has medians of {ROUNDS}, of a video of `make demo` "
        f"({video['video']},\n{video['minutes']:.1f} minutes, 320 × 192); the index is read from the page cache. "
        "On a GPU: not measured."
    )
    return f"{where}\n\n{asked}\n\n{searched}"
