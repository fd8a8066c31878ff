"""Everything that wants measuring on a GPU machine, in steps that can be run apart: what `make gpu` runs.

A step that fails is named and the rest goes on; each ends within its limit, and what it wrote by then counts. Into the
folder go STEP.log, pytest-benchmark's JSON, the training run's, and summary.json. It needs torch, triton, numpy,
einops, pytest and pytest-benchmark, and a CUDA compiler for the native op.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
STEP_SECONDS = 530
"""A step's limit: machines that are lent by the command end it at ten minutes."""
GRACE_SECONDS = 25
"""After the interrupt that makes pytest write what it has."""
BENCHMARKS = {"attention": 210, "contrastive": 90, "log_mel": 60, "training_step": 90, "optimizer": 40, "small_ops": 40}
"""In the order of their worth; seconds each may take. Videos are not decoded on a GPU yet."""
SANITIZED = "test_log_mel_cuda or test_attention_cuda or test_contrastive_cuda"
TRAINING_MINUTES = 3.0
STEPS = ("build", "test", "bench", "train")
OTHER_STEPS = ("sanitize",)


def commands(step: str, out: Path) -> list[tuple[str, list[str], float, dict[str, str]]]:
    """What a step runs: name, command, seconds it may take, environment."""
    python, tests = sys.executable, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    if step == "build":
        return [("build", [python, "setup.py", "--quiet", "build_ext", "--inplace"], STEP_SECONDS, {})]
    if step == "test":
        return [("test", [*tests, "tests/kernels"], STEP_SECONDS, {})]
    if step == "bench":
        run = [python, "-m", "benchmarks", "--device", "cuda", "--out", str(out)]
        return [(f"bench-{name}", [*run, name], seconds, {}) for name, seconds in BENCHMARKS.items()]
    if step == "train":
        run = [python, "-m", "benchmarks.training_run", "--config", "base", "--minutes", str(TRAINING_MINUTES)]
        return [("train", [*run, "--device", "cuda", "--out", str(out)], STEP_SECONDS, {})]
    # Every allocation on its own, or an access beyond a tensor would fall into the allocator's next one.
    apart = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    checked = [*tests, "tests/kernels", "-k", f"({SANITIZED}) and not every_tile and not larger"]
    tool = ["compute-sanitizer", "--error-exitcode", "9", "--target-processes", "all", "--tool"]
    each = STEP_SECONDS / 2
    return [(f"sanitize-{name}", [*tool, name, *checked], each, apart) for name in ("memcheck", "racecheck")]


def run(name: str, command: list[str], seconds: float, extra: dict[str, str], out: Path) -> dict[str, Any]:
    """Runs one command, its output in `out`/NAME.log; interrupts it at its limit, and kills it if need be."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **extra}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(_import_name()), str(ROOT), os.environ.get("PYTHONPATH")])
    )
    log = out / f"{name}.log"
    start = time.monotonic()
    print(f"{name}: {' '.join(command)}", flush=True)
    with log.open("w", encoding="utf-8") as written:
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            written.write(f"{error}\n")
            return {"step": name, "status": f"not run: {error}", "seconds": 0.0, "last_line": ""}
        status = _wait(process, seconds)
    lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return {
        "step": name,
        "status": status,
        "seconds": round(time.monotonic() - start, 1),
        "last_line": lines[-1] if lines else "",
    }


def _wait(process: subprocess.Popen[bytes], seconds: float) -> str:
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        for sign, patience in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGKILL, None)):
            os.killpg(process.pid, sign)
            try:
                process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        return f"stopped at its limit of {seconds:.0f} s"
    return "ok" if code == 0 else f"failed with status {code}"


def _import_name() -> Path:
    """A folder in which the ops have the name that they are imported by."""
    folder = ROOT / "build" / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "reserve_kernels"
    if not link.exists():
        link.symlink_to(Path("..") / ".." / "kernels")
    return folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"{', '.join(STEPS)} (default), {OTHER_STEPS[0]}")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-results", metavar="FOLDER")
    options = parser.parse_args(arguments)
    unknown = [step for step in options.steps if step not in STEPS + OTHER_STEPS]
    if unknown:
        parser.error(f"no step {unknown[0]!r}; there are {', '.join(STEPS + OTHER_STEPS)}")
    import torch

    if not torch.cuda.is_available():
        print("make gpu: PyTorch sees no CUDA device here", file=sys.stderr)
        return 1
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    done = [run(*command, out) for step in options.steps or STEPS for command in commands(step, out)]
    (out / "summary.json").write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "steps": done}, indent=1) + "\n")
    width = max(len(entry["step"]) for entry in done)
    print(f"\n{torch.cuda.get_device_name()}; logs and figures in {out}")
    for entry in done:
        print(f"{entry['step']:<{width}}  {entry['status']}, {entry['seconds']:.0f} s: {entry['last_line'][:150]}")
    return int(any(entry["status"] != "ok" for entry in done))


if __name__ == "__main__":
    sys.exit(main())
