"""Runs parts of the work on a GPU machine: tests, benchmarks, profiles, a short training run.

A part that fails or reaches its limit is reported and the others still run. The output folder receives PART.log and the
results of each part, and summary.json, which keeps the entries of earlier runs. With --seconds, for a machine that is
at hand for minutes, each part has its short limit, parts that no longer fit are skipped, and the output folder receives
only summary.txt and results.tar.gz, both replaced after each command. It needs torch, triton, numpy, einops, pytest and
pytest-benchmark; setuptools, CMake and a CUDA compiler for the native ops; ncu and compute-sanitizer for the parts of
these names. RESERVE_COMMIT names the commit if git cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.archive import pack
from benchmarks.gpu.parts import FULL, PARTS, PATIENT_SECONDS, ROOT, SHORT, Session
from benchmarks.gpu.run import entry, import_folder, run_part
from reserve.fs import write_text_atomic

SESSION = ROOT / "build" / "gpu-session"
"""Where a short session collects what it packs. A later session on the same machine adds to it."""
PACKING_SECONDS = 3
TOOLS = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute/*")
"""Where ncu and compute-sanitizer are if not on the PATH."""
DESCRIBE = """
import importlib.metadata, sys, torch
versions = {name: importlib.metadata.version(name) for name in ("torch", "triton", "numpy", "pytest")}
print(f"Python {sys.version.split()[0]}, {versions}", file=sys.stderr)
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")
"""


def gpu() -> str:
    """The GPU's name, or "" if PyTorch finds none; prints versions."""
    found = subprocess.run([sys.executable, "-c", DESCRIBE], stdout=subprocess.PIPE, text=True, timeout=90, check=False)
    return found.stdout.strip()


def run_parts(names: list[str], session: Session, end: float | None) -> Iterator[dict[str, Any]]:
    """Runs the parts and yields the summary entry of each command. All end by the monotonic clock's `end`, if given.

    A part starts if at least half of its time is left.
    """
    for name in names:
        part = PARTS[name]
        seconds = float(PATIENT_SECONDS)
        if end is not None:
            seconds = min(part.seconds, end - time.monotonic())
            if seconds < part.seconds / 2:
                yield entry(name, f"skipped: it needs {part.seconds / 2:.0f} s, {max(0.0, seconds):.0f} s are left")
                continue
        yield from run_part(name, part.commands(session), seconds, session.out)


def keep(new: dict[str, Any], device: str, summary: Path) -> None:
    """Writes `new` to the summary, replacing an older entry of the same command."""
    old = json.loads(summary.read_text("utf-8"))["parts"] if summary.exists() else []
    entries = {other["part"]: other for other in old} | {new["part"]: new}
    found = {"gpu": device, "commit": commit(), "parts": list(entries.values())}
    write_text_atomic(summary, json.dumps(found, indent=1) + "\n")


def commit() -> str | None:
    """RESERVE_COMMIT or what git says; None on a machine without either."""
    named = os.environ.get("RESERVE_COMMIT")
    if named or shutil.which("git") is None:
        return named
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None


def table(entries: list[dict[str, Any]]) -> str:
    """One line for each entry: the command, its status, seconds, and the last line of its output."""
    width = max((len(one["part"]) for one in entries), default=0)
    return "\n".join(
        f"{one['part']:<{width}}  {one['status']}, {one['seconds']:.0f} s: {one['last_line'][:150]}" for one in entries
    )


def pack_results(results: Path, out: Path) -> None:
    """Replaces results.tar.gz and summary.txt in `out`."""
    left_out = pack(results, out / "results.tar.gz")
    summary = results / "summary.json"
    found: dict[str, Any] = json.loads(summary.read_text("utf-8")) if summary.exists() else {"gpu": "", "parts": []}
    lines = [found["gpu"], table(found["parts"]), *(f"too large for the archive: {name}" for name in left_out)]
    write_text_atomic(out / "summary.txt", "\n".join(lines) + "\n")


def parser() -> argparse.ArgumentParser:
    parts = "\n".join(f"  {name:<12} {part.purpose}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        epilog=f"parts:\n{parts}\n\ndefault: {' '.join(FULL)}\nwith --seconds: {' '.join(SHORT)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to run, in this order")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-results", metavar="FOLDER")
    parser.add_argument(
        "--tests", nargs="+", default=[], metavar="TEST", help="what the part tests runs, as for pytest"
    )
    parser.add_argument("--seconds", type=float, metavar="TOTAL", help="end within this time, with short limits")
    return parser


def _end(*_: object) -> None:
    sys.exit(143)


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser().error(f"no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    start = time.monotonic()
    sys.path.append(str(import_folder()))
    # Whoever ends this program with SIGTERM ends the running command too.
    signal.signal(signal.SIGTERM, _end)
    device = gpu()
    if not device:
        print("benchmarks.gpu: PyTorch finds no CUDA device", file=sys.stderr)
        return 1
    short, out = options.seconds is not None, options.out.resolve()
    results = SESSION if short else out
    for folder in (out, results):
        folder.mkdir(parents=True, exist_ok=True)
    for variable, name in (("TRITON_CACHE_DIR", "triton"), ("TORCHINDUCTOR_CACHE_DIR", "inductor")):
        os.environ.setdefault(variable, str(ROOT / "build" / "gpu-cache" / name))
    folders = [str(path) for pattern in TOOLS for path in Path("/").glob(pattern[1:])]
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])
    session = Session(results, short, tuple(options.tests))
    end = start + options.seconds - PACKING_SECONDS if short else None
    done = []
    try:
        for new in run_parts(options.parts or list(SHORT if short else FULL), session, end):
            done.append(new)
            keep(new, device, results / "summary.json")
            if short:
                pack_results(results, out)
    finally:
        # Also what an interrupted part has written.
        if short:
            pack_results(results, out)
    print(f"\n{device}; logs and results in {out}\n{table(done)}")
    return int(any(one["status"] != "ok" for one in done))


if __name__ == "__main__":
    sys.exit(main())
