"""The section of real sounds: accuracies with and without pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.learning.intervals import Outcomes, verdict
from benchmarks.learning.sounds import FINETUNED, FINETUNED_UNTRAINED, MEL, METHODS, PROBE, PROBE_UNTRAINED
from benchmarks.report.learning.objectives import percent, points
from reserve_kernels.bench.report import markdown

TEXT = """## Real sounds

The audio encoder of the first objective's models has heard only the demo's synthetic narrators and sounds. Does that
help to name real sounds? ESC-10 has clips of 5 s of ten kinds (rain, dogs, helicopters …), each tested by a model that
was trained on the other folds; FSDD has ten spoken digits, tested on speakers who were not trained on.

- *mel statistics*: mean and standard deviation of each mel band over time, no encoder.
- *frozen*: what the encoder makes of the windows (its CLS and mean joint token, averaged), pretrained or with random
  weights. Both of these feed the same logistic regression.
- *finetuned*: the encoder and a linear head, trained together; the learning rate is the best of several on held-out
  training clips, chosen with the first seed.

95% intervals as above, for other seeds and other sources: recordings (ESC-10) or speakers (FSDD). The last column is
the mean over the seeds on the last part alone: ESC-10's last fold, and FSDD's last speakers."""
COMPARED = ((PROBE, PROBE_UNTRAINED), (PROBE, MEL), (FINETUNED, FINETUNED_UNTRAINED), (FINETUNED, MEL))


def section(machine: str, found: Mapping[str, Any]) -> str:
    names = dict.fromkeys(run["settings"]["set"] for run in found["runs"])
    parts = [
        _set(name, {r["settings"]["method"]: r for r in found["runs"] if r["settings"]["set"] == name})
        for name in names
    ]
    return "\n\n".join([TEXT, *parts]) + "\n"


def _set(name: str, runs: Mapping[str, Mapping[str, Any]]) -> str:
    first = runs[METHODS[0]]
    seeds = {
        method: Outcomes.of(list(run["right"].values()), run["asked"], is_seeded=method != MEL)
        for method, run in runs.items()
    }
    rows = [
        (
            method,
            percent(seeds[method].interval()),
            ", ".join(f"{value:.1%}" for value in seeds[method].by_run),
            f"{np.mean(runs[method]['last_part']['right']) / runs[method]['last_part']['clips']:.1%}",
        )
        for method in METHODS
    ]
    lines = []
    for ours, theirs in COMPARED:
        difference = seeds[ours].minus(seeds[theirs])
        found = verdict(difference)
        said = f"{ours} against {theirs}: {found}" if found == "no difference shown" else f"{ours} {found} {theirs}"
        lines.append(f"- {said}: {points(difference)}.")
    setup = f"{sum(first['asked'])} clips from {len(first['asked'])} sources, chance {1 / first['classes']:.0%}."
    table = markdown(("method", "accuracy", "by seed", "last part"), rows)
    return "\n\n".join([f"### {name}\n\n{setup}", table, "\n".join(lines)])
