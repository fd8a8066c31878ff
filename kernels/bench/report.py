"""Tables of what was measured, and the machine that it was measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import reserve_kernels
from reserve_kernels import native
from reserve_kernels.bench.interleaved import OURS, Measured

VERSIONS = ["torch", "triton", "numpy", "librosa", "torchaudio", "transformers", "openai-whisper", "kaldi-native-fbank"]
VERSIONS += ["torchvggish", "open_clip_torch", "flash-attn", "xformers", "bitsandbytes"]

Row = dict[str, Any]


def machine(device: torch.device) -> dict[str, Any]:
    """What the times depend on, without anything that names the machine or its user."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "reserve": reserve_kernels.__version__,
        "native": native.describe(),
        "versions": {name: version for name in VERSIONS if (version := _version(name))},
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def rows(group: str, name: str, threads: int | None, measured: Measured) -> list[Row]:
    """A row for each implementation of a case, ours first.

    It has median and quartiles in seconds and `ours_is_faster_by`, its median over ours; or why it is `missing`; or
    what was `wrong`.
    """
    case: Row = {"group": group, "case": name, "threads": threads}
    ours = statistics.median(measured.seconds[OURS])
    found: list[Row] = []
    for implementation, seconds in measured.seconds.items():
        low, median, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
        details = measured.details[implementation]
        found.append(
            case
            | {"implementation": implementation, "seconds": statistics.median(seconds), "low": low, "high": high}
            | {"rounds": len(seconds), "ours_is_faster_by": median / ours}
            | {name: value for name, value in details.items() if isinstance(value, (int, float, str))}
        )
    for key, reasons in (("missing", measured.missing), ("wrong", measured.wrong)):
        found += [case | {"implementation": name, key: reason} for name, reason in reasons.items()]
    return found


def result(op: str, device: torch.device, found: Sequence[Row], loops: Mapping[str, float]) -> dict[str, Any]:
    """What is stored of a run. `loops` says how calls were timed."""
    return {
        "op": op,
        "device": device.type,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(device),
        "load_average": os.getloadavg()[0],
        **loops,
        "rows": list(found),
    }


COLUMNS = ("case", "threads", "implementation", "time", "quartiles", "ours is faster by")


def cells(row: Row) -> tuple[str, ...]:
    """The texts of a row under COLUMNS."""
    head = (
        f"{row['group']}, {row['case']}",
        "" if row["threads"] is None else str(row["threads"]),
        row["implementation"],
    )
    if "seconds" not in row:
        return (*head, row.get("missing") or f"wrong: {row['wrong']}", "", "")
    faster = "" if row["implementation"] == OURS else f"{row['ours_is_faster_by']:.2f}x"
    return (*head, duration(row["seconds"]), f"{duration(row['low'])} to {duration(row['high'])}", faster)


def duration(seconds: float) -> str:
    """Seconds with three digits and a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def text(found: Sequence[Row]) -> str:
    """The rows under COLUMNS, aligned for a terminal."""
    table = [COLUMNS, *(cells(row) for row in found)]
    widths = [max(len(line[i]) for line in table if len(line[3]) < 40 or i < 3) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


def summary(machine: Mapping[str, Any]) -> str:
    """One line on a machine."""
    where = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{where}; Python {machine['python']}, reserve {machine['reserve']}, {versions}"
