"""Runs the benchmarks: `python -m benchmarks --help`. argparse, because a GPU machine may have nothing but the core."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.catalogue import BENCHMARKS

ROOT = Path(__file__).parent.parent
INTERRUPTED, PATIENCE_SECONDS = 130, 12
NOTHING_COLLECTED = 5
"""pytest's status."""
RESULTS = Path(__file__).parent / "results"


def parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:<14} {benchmark.subject}" for name, benchmark in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Times our implementations and their peers in turn, in one run, after comparing their results.",
        epilog=f"benchmarks:\n{listing}\n\nWhat follows -- goes to pytest, --benchmark-histogram for example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda", "all"), default="cpu", help="default: cpu")
    parser.add_argument("--filter", metavar="EXPRESSION", help="only tests whose name matches, as pytest -k has it")
    parser.add_argument("--list", action="store_true", help="list the tests that would run, and stop")
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it runs, not how fast; never saved")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write NAME.json of each benchmark there")
    parser.add_argument("--save", action="store_true", help=f"the same into {RESULTS.relative_to(ROOT)}/MACHINE")
    return parser


def machine_name(device: str) -> str:
    """The folder of this machine's results on `device`: its GPU, or its CPU and number of cores.

    Those of one must not replace those of the other, which have files of the same names.
    """
    import torch

    if device == "cuda" and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        from cpuinfo import get_cpu_info

        name = f"{get_cpu_info().get('brand_raw', platform.machine())} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where everything that could run did and agreed with ours, and otherwise pytest's status."""
    given = sys.argv[1:] if arguments is None else arguments
    given, passed_on = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    options = parser().parse_args(given)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser().error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if options.save and options.quick:
        parser().error("--save wants full runs; leave out --quick, or name a folder with --out")
    if options.save and options.device == "all":
        parser().error("--save wants --device cpu or cuda, whose results lie in different folders")
    histogram = any(argument.startswith("--benchmark-histogram") for argument in passed_on)
    if histogram and not options.list and importlib.util.find_spec("pygal") is None:
        parser().error("--benchmark-histogram needs pip install 'pytest-benchmark[histogram]'")
    folder = RESULTS / machine_name(options.device) if options.save else options.out
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    # Threads of one library that spin after their work would take the core from the next.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    # Called from a test that runs beside others, pytest would take itself for one of those and time nothing.
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_XDIST")}
    statuses = []
    for name in options.names or BENCHMARKS:
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", f"benchmarks/{name}.py", *passed_on]
        command += {"cpu": ["-m", "not gpu"], "cuda": ["-m", "gpu"], "all": []}[options.device]
        command += ["-k", options.filter] if options.filter else []
        command += ["--collect-only"] if options.list else ["--quick"] if options.quick else []
        command += ["--benchmark-columns=median,iqr,min,rounds", "--benchmark-sort=mean"]
        if folder is not None and not options.list:
            command.append(f"--benchmark-json={folder.resolve() / name}.json")
        status = _run(command, environment)
        if status == INTERRUPTED:
            return status
        statuses.append(status)
    if set(statuses) == {NOTHING_COLLECTED}:
        print("nothing matches: see --list, --device and --filter", file=sys.stderr)
        return NOTHING_COLLECTED
    # One benchmark may have nothing that matches, or no part for the device.
    return max(status for status in statuses if status != NOTHING_COLLECTED)


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Like subprocess.call, but leaves an interrupted pytest the time to write what it has, and gives INTERRUPTED."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        return INTERRUPTED


if __name__ == "__main__":
    # An interrupted run stores what it measured, but nohup, a shell's background job and CI runners start programs with
    # SIGINT ignored. The child, pytest, resets this handler to the default when it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
