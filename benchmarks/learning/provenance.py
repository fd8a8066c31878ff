"""Where a result comes from, and where it is stored."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.__main__ import RESULTS, machine_name
from benchmarks.machine import describe, is_changed

ROOT = Path(__file__).parents[2]


def provenance() -> dict[str, Any]:
    """The commit, the time, the processor and the versions of what is running."""
    from cpuinfo import get_cpu_info

    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "commit": os.environ.get("RESERVE_COMMIT") or done.stdout.strip() or "unknown",
        "changed": is_changed(ROOT),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": get_cpu_info().get("brand_raw", "unknown"),
        "cores": len(os.sched_getaffinity(0)),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
        **describe(),
    }


def store(name: str, result: Mapping[str, Any]) -> Path:
    """Writes a result to this machine's folder of results, in place of an older one, without the machine's paths."""
    path = RESULTS / machine_name("cpu") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(without_place(result), indent=1, sort_keys=True) + "\n", "utf-8")
    return path


def without_place(value: Any) -> Any:
    """JSON values with absolute paths made relative to the working directory; of those elsewhere the name is left."""
    if isinstance(value, Mapping):
        return {name: without_place(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_place(one) for one in value]
    if isinstance(value, str) and (path := Path(value)).is_absolute():
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name
    return value
