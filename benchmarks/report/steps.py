"""What benchmarks.step_lease found, in the form of pytest-benchmark."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.cuda import card
from benchmarks.interleaved import OURS

OP = "training step"
SHIPPED = "ours, compiled layers, fused GELU"
"""The variant that the trainer runs on a GPU unless its settings say otherwise."""


def as_record(found: dict[str, Any]) -> dict[str, Any]:
    """The content of step.json as a record of pytest-benchmark, in which the shipped variant is ours.

    To what step_lease writes, a stored file adds `facts.session`: commit, date, config, and a note that tells apart
    several sessions with the same case.
    """
    facts, session = found["facts"], found["facts"]["session"]
    label = f"{session['config']}, {facts['examples']} examples" + (f", {session['note']}" if "note" in session else "")
    limits = {key: facts[key] for key in ("flops", "copy_bytes_per_s", "matmul_flops_per_s")}
    # The traffic of weights, gradients and moments is small beside the products.
    common = {"op": OP, "case": label, "bytes": 0, **limits}
    measured = {name: variant for name, variant in found["variants"].items() if "seconds" in variant}
    return {
        "machine_info": facts["machine"],
        "commit_info": {"id": session["commit"], "dirty": False},
        "datetime": session["date"],
        "benchmarks": [
            {
                "group": f"{OP}, {card(facts['machine']['gpu']['name'])}, {label}",
                "stats": _stats(variant["seconds"]),
                "extra_info": common | {"implementation": OURS if name == SHIPPED else name} | _of_variant(variant),
            }
            for name, variant in measured.items()
        ],
    }


def _stats(times: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return {"median": median, "q1": low, "q3": high, "min": min(times), "rounds": len(times)}


def _of_variant(variant: dict[str, Any]) -> dict[str, Any]:
    return {
        "gpu_seconds": sum(variant["kinds_ms"].values()) / 1e3,
        "peak_bytes": variant["peak_bytes"],
        "recompiled": variant["recompiled"],
    }
