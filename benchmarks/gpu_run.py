"""What `make gpu` runs: the build, tests, benchmarks and a short training on a GPU machine, in separate steps.

A step that fails is reported and the others still run. Each step ends within its time limit and keeps what it had
written. The output folder receives STEP.log, the JSON of pytest-benchmark and of the training, and summary.json, which
keeps the entries of earlier runs. It needs torch, triton, numpy, einops, pytest and pytest-benchmark; setuptools, CMake
and a CUDA compiler for the native ops; compute-sanitizer for `sanitize`. RESERVE_COMMIT names the commit if git cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
STEP_SECONDS = 535
"""A step's time limit, shutdown included: some machines end every command after ten minutes."""
GRACE_SECONDS = 15
"""Time for each command to store its results after it is interrupted."""
UNFIT = ("every_tile", "to_the_31", "graph", "tuner", "opcheck", "memory_stays", "host_threads")
"""Parts of the names of tests that the sanitizer skips: too slow under it, or they need the allocator's cache, which it
turns off."""
TRAINING_MINUTES = 3.0
STEPS = ("build", "test", "bench", "train")
OTHER_STEPS = ("tune", "sanitize")


class Command(NamedTuple):
    """One command of a step. `share`: its share of the step's remaining time; `extra`: environment variables."""

    name: str
    command: list[str]
    share: float = 1.0
    extra: dict[str, str] = {}  # noqa: RUF012  # never changed


def commands(step: str, out: Path) -> list[Command]:
    """What `step` runs, its results in `out`."""
    python, tests = sys.executable, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    if step == "build":
        # An ordinary build skips native code that it cannot build; this one must fail.
        required = {"RESERVE_NATIVE": "1", "RESERVE_CUDA": "1"}
        return [Command("build", [python, "setup.py", "--quiet", "build_ext", "--inplace"], extra=required)]
    if step == "test":
        return [Command("test", [*tests, "tests/kernels"])]
    if step == "bench":
        from benchmarks.catalogue import GPU_BENCHMARKS

        run = [python, "-m", "benchmarks", "--device", "cuda", "--out", str(out)]
        return [Command(f"bench-{name}", [*run, name], share) for name, _, share in GPU_BENCHMARKS]
    if step == "train":
        run = [python, "-m", "benchmarks.training_run", "--config", "base", "--minutes", str(TRAINING_MINUTES)]
        return [Command("train", [*run, "--device", "cuda", "--out", str(out)])]
    if step == "tune":
        # The tuner writes its file among the results and nothing to the machine's cache.
        tuned, attention = {"XDG_CACHE_HOME": str(out / "tuned")}, "test_cuda and forward+backward and not span"
        run = [python, "-m", "benchmarks", "--device", "cuda", "--out", str(out / "tuned"), "attention"]
        return [
            Command("tune", [python, "-m", "reserve_kernels.attention.tune"], 2.0, tuned),
            Command("bench-attention-tuned", [*run, "--filter", attention], 1.0, tuned),
        ]
    from reserve_kernels.registry import OPS

    # Separate allocations: otherwise an out-of-bounds access could hit the allocator's next tensor unseen.
    uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    sanitized = " or ".join(f"test_{op.folder}_cuda" for op in OPS)
    checked = [*tests, "tests/kernels", "-k", f"({sanitized}) and not {' and not '.join(UNFIT)}"]
    tool = ["compute-sanitizer", "--error-exitcode", "9", "--target-processes", "all", "--tool"]
    return [Command(f"sanitize-{name}", [*tool, name, *checked], extra=uncached) for name in ("memcheck", "racecheck")]


def run_step(step: str, out: Path) -> Iterator[dict[str, Any]]:
    """Runs a step's commands one after another and yields the summary entry of each. Unused time goes to the next."""
    end, remaining = time.monotonic() + STEP_SECONDS, commands(step, out)
    log = out / f"{step}.log"
    log.write_text("")
    while remaining:
        share = remaining[0].share / sum(command.share for command in remaining)
        seconds = end - GRACE_SECONDS * len(remaining) - time.monotonic()
        yield run(remaining.pop(0), max(1.0, share * seconds), log)


def run(command: Command, seconds: float, log: Path) -> dict[str, Any]:
    """Runs one command and appends its output to `log`. At its limit it is interrupted, then killed."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **command.extra}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(_import_folder()), str(ROOT), os.environ.get("PYTHONPATH")])
    )
    before = log.stat().st_size if log.exists() else 0
    start = time.monotonic()
    print(f"{command.name}: {' '.join(command.command)}", flush=True)
    with log.open("a", encoding="utf-8") as written:
        try:
            process = subprocess.Popen(
                command.command,
                cwd=ROOT,
                env=environment,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_accept_interrupts,
            )
        except OSError as error:
            written.write(f"{error}\n")
            status = f"not run: {error}"
        else:
            status = _wait(process, seconds)
    output = log.read_bytes()[before:].decode("utf-8", errors="replace")
    lines = [line for line in output.splitlines() if line.strip()]
    return {
        "step": command.name,
        "status": status,
        "seconds": round(time.monotonic() - start, 1),
        "last_line": lines[-1] if lines else "",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _accept_interrupts() -> None:
    """Undoes, in the child, that nohup, a shell's background job or a CI runner starts programs with SIGINT ignored.

    A child that ignored it would be killed at its limit without what it had measured.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> str:
    """Waits for the process up to its limit, then ends it and everything that it has started."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        return f"stopped at its limit of {seconds:.0f} s"
    finally:
        # Its children would otherwise run beside the next step.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return "ok" if code == 0 else f"failed with status {code}"


def _import_folder() -> Path:
    """A folder from which `reserve_kernels` imports this checkout's ops: a GPU machine has nothing installed."""
    folder = ROOT / "build" / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "reserve_kernels"
    if not link.exists():
        link.symlink_to(Path("..") / ".." / "kernels")
    return folder


def _keep(entry: dict[str, Any], summary: Path) -> None:
    """Writes `entry` to the summary, replacing an older entry of the same step."""
    import torch

    old = json.loads(summary.read_text("utf-8"))["steps"] if summary.exists() else []
    steps = {other["step"]: other for other in old} | {entry["step"]: entry}
    found = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "steps": list(steps.values())}
    summary.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "steps", nargs="*", metavar="STEP", help=f"{', '.join(STEPS)} (default), {', '.join(OTHER_STEPS)}"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-results", metavar="FOLDER")
    options = parser.parse_args(arguments)
    sys.path.append(str(_import_folder()))
    unknown = [step for step in options.steps if step not in STEPS + OTHER_STEPS]
    if unknown:
        parser.error(f"no step {unknown[0]!r}; choose from {', '.join(STEPS + OTHER_STEPS)}")
    import torch

    if not torch.cuda.is_available():
        print("make gpu: PyTorch finds no CUDA device", file=sys.stderr)
        return 1
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    done = []
    for entry in (entry for step in options.steps or STEPS for entry in run_step(step, out)):
        done.append(entry)
        _keep(entry, out / "summary.json")
    width = max(len(entry["step"]) for entry in done)
    print(f"\n{torch.cuda.get_device_name()}; logs and results in {out}")
    for entry in done:
        print(f"{entry['step']:<{width}}  {entry['status']}, {entry['seconds']:.0f} s: {entry['last_line'][:150]}")
    return int(any(entry["status"] != "ok" for entry in done))


if __name__ == "__main__":
    sys.exit(main())
