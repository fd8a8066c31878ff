"""Tables of a machine's results."""

from __future__ import annotations

from typing import Any

from benchmarks.interleaved import OURS, limit_seconds
from benchmarks.report import steps
from benchmarks.report.results import Case, Machine
from reserve_kernels.bench.report import duration


def size(value: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def provenance(machine: Machine) -> str:
    """One row a file: date, commit, versions, and the limits measured in the same run."""
    rows = ["| file | date | commit | torch | clocks | copy | matrix product |", "| --- " * 7 + "|"]
    for name, run in machine.runs.items():
        info, commit = run["machine_info"], run["commit_info"]
        limits = _limits(run["cases"])
        changed = " + changes" if commit.get("dirty") else ""
        rows.append(
            f"| {name}.json | {run['datetime'][:10]} | {commit['id'][:10]}{changed} "
            f"| {info['versions']['torch']} | {_clocks(info)} | {limits} |"
        )
    return "\n".join(rows)


def _clocks(info: dict[str, Any]) -> str:
    gpu = info.get("gpu") or {}
    if "clocks.sm" in gpu:
        return f"{gpu['clocks.sm']} (at most {gpu['clocks.max.sm']}), driver {gpu['driver_version']}"
    return info["cpu"].get("hz_actual_friendly", "unknown")


def _limits(cases: list[Case]) -> str:
    facts = next((case.facts for case in cases if "copy_bytes_per_s" in case.facts), None)
    if facts is None:
        return "— | —"
    return f"{facts['copy_bytes_per_s'] / 1e9:.3g} GB/s | {facts['matmul_flops_per_s'] / 1e9:.3g} GFLOP/s"


def op_table(cases: list[Case]) -> str:
    """A row for each implementation; with CPU seconds where they were counted."""
    counts = any("cpu_seconds" in timing.info for case in cases for timing in case.timings.values())
    head = "| case | implementation | median | quartiles | ours is faster by | of the limit | extra memory |"
    rows = [head + (" CPU time |" if counts else ""), "| --- | --- | --- | --- | --- | --- | --- |" + " --- |" * counts]
    for case in cases:
        limit = limit_seconds(case.facts)
        for name, timing in case.timings.items():
            faster = "" if name == OURS else f"{case.faster_than(name):.2f}x"
            share = "" if not limit else f"{limit / timing.median:.0%}"
            peak = timing.info.get("peak_extra_bytes")
            called = f"**{name}**" if name == OURS else name
            # Others' calls are in a graph.
            called += ", launches included" if timing.info.get("in_graph") is False else ""
            rows.append(
                f"| {case.label if name == OURS else ''} | {called} "
                f"| {duration(timing.median)} | {duration(timing.low)} – {duration(timing.high)} | {faster} | {share} "
                f"| {'' if peak is None else size(peak)} |"
                + (f" {duration(timing.info['cpu_seconds'])} |" if counts else "")
            )
    return "\n".join(rows)


def step_variants(machines: list[Machine]) -> str:
    """The variants of each training step that was profiled: time by the clock, time of the kernels, memory."""
    profiled = [(machine, case) for machine in machines for case in machine.cases if "gpu_seconds" in case.facts]
    return "\n\n".join(
        f"{machine.title}, {case.label.partition(', ')[2]}:\n\n{_step_table(case)}" for machine, case in profiled
    )


def _step_table(case: Case) -> str:
    rows = [
        "| variant | step, median | quartiles | fastest | kernels | MFU by step | MFU by kernels | peak memory |",
        "| --- " * 8 + "|",
    ]
    least = limit_seconds(case.facts) or 0.0
    for name, timing in case.timings.items():
        kernels = timing.info["gpu_seconds"]
        rows.append(
            f"| {f'**{steps.SHIPPED}**' if name == OURS else name} | {duration(timing.median)} "
            f"| {duration(timing.low)} – {duration(timing.high)} | {duration(timing.fastest)} | {duration(kernels)} "
            f"| {least / timing.median:.0%} | {least / kernels:.0%} | {size(timing.info['peak_bytes'])} |"
        )
    return "\n".join(rows)
