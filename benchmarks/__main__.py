"""Runs the benchmarks; see `python -m benchmarks --help`. It uses argparse: a GPU machine may have only the core."""

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
INTERRUPTED = 130
PATIENCE_SECONDS = 60
"""After which an interrupted pytest is killed. It describes the machine before it stores its results."""
NOTHING_COLLECTED = 5
"""pytest's exit status."""
RESULTS = Path(__file__).parent / "results"


def parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:<14} {benchmark.subject}" for name, benchmark in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Times our implementations and their peers, interleaved in one run, after comparing their results.",
        epilog=f"benchmarks:\n{listing}\n\nArguments after -- go to pytest, for example --benchmark-histogram.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda", "all"), default="cpu", help="default: cpu")
    parser.add_argument("--filter", metavar="EXPRESSION", help="run only tests that match, as pytest -k")
    parser.add_argument("--peers", metavar="REGEX", help="run only ours and the peers whose names match")
    parser.add_argument("--slow", action="store_true", help="also the cases that take many minutes each")
    parser.add_argument("--list", action="store_true", help="list the tests that would run, and stop")
    parser.add_argument("--quick", action="store_true", help="a few rounds, to see whether it runs; cannot be saved")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write NAME.json of each benchmark there")
    parser.add_argument("--save", action="store_true", help=f"the same into {RESULTS.relative_to(ROOT)}/MACHINE")
    return parser


def machine_name(device: str) -> str:
    """The folder of this machine's results on `device`, named by its GPU, or by its CPU and number of cores.

    Results of the CPU and the GPU have the same file names and must not overwrite each other.
    """
    import torch

    if device == "cuda" and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        from cpuinfo import get_cpu_info

        name = f"{get_cpu_info().get('brand_raw', platform.machine())} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 if everything that could run ran and agreed with ours, and otherwise pytest's exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, pytest_arguments = parser().parse_args(arguments[:end]), arguments[end + 1 :]
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser().error(f"no benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}")
    if options.save and options.quick:
        parser().error("--save needs full runs; drop --quick, or name a folder with --out")
    if options.save and options.device == "all":
        parser().error("--save needs --device cpu or cuda, whose results go to different folders")
    histogram = any(argument.startswith("--benchmark-histogram") for argument in pytest_arguments)
    if histogram and not options.list and importlib.util.find_spec("pygal") is None:
        parser().error("--benchmark-histogram needs pip install 'pytest-benchmark[histogram]'")
    folder = RESULTS / machine_name(options.device) if options.save else options.out
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    # Otherwise threads of one library spin after their work and take the core from the next.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    # With xdist's variables of a surrounding test run, pytest-benchmark would time nothing.
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_XDIST")}
    statuses = []
    for name in options.names or BENCHMARKS:
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", f"benchmarks/{name}.py", *pytest_arguments]
        chosen = {"cpu": ["not gpu"], "cuda": ["gpu"], "all": []}[options.device]
        chosen += [] if options.slow else ["not slow"]
        command += ["-m", " and ".join(chosen)] if chosen else []
        command += ["-k", options.filter] if options.filter else []
        command += ["--peers", options.peers] if options.peers else []
        command += ["--collect-only"] if options.list else ["--quick"] if options.quick else []
        command += ["--benchmark-columns=median,iqr,min,rounds", "--benchmark-sort=mean"]
        if folder is not None and not options.list:
            command.append(f"--benchmark-json={folder.resolve() / name}.json")
        status = _run(command, environment)
        if status == INTERRUPTED:
            return status
        statuses.append(status)
    if set(statuses) == {NOTHING_COLLECTED}:
        print("no test matches; see --list, --device and --filter", file=sys.stderr)
        return NOTHING_COLLECTED
    # A benchmark may have no test that matches or that runs on the device.
    return max(status for status in statuses if status != NOTHING_COLLECTED)


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Like subprocess.call, but gives an interrupted pytest time to store its results, and then returns INTERRUPTED."""
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
