"""The parts of a session on a GPU machine: what each runs and for how long.

A part takes a folder for its results and the seconds that it has. Its commands share those seconds.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PATIENT_SECONDS = 535
"""A part's limit in `make gpu`, shutdown included: some machines end every command after ten minutes."""
TEST_SECONDS = 60
"""A single test's limit, where pytest-timeout is installed."""
UNFIT = ("every_tile", "to_the_31", "graph", "tuner", "opcheck", "memory_stays", "host_threads")
"""Parts of the names of tests that the sanitizer skips: too slow under it, or they need the allocator's cache, which it
turns off."""
LAST = ("to_the_31", "tuner", "every_tile")
"""Parts of the names of tests that start last: they take long, and other tests cover most of their code."""
SMALL = ("without_position", "angles_get_no_gradient", "unaligned_tensors", "gradients_match_float64 and log_mel")
"""Parts of the names of a few small tests, at least one an op, for a short run under the sanitizer."""


class Command(NamedTuple):
    """One command of a part. `share`: its share of the part's remaining time; `extra`: environment variables."""

    name: str
    command: list[str]
    share: float = 1.0
    extra: dict[str, str] = {}  # noqa: RUF012  # never changed


class Part(NamedTuple):
    """What a part does, its limit in a short session (shutdown included), and its commands."""

    purpose: str
    seconds: int
    commands: Callable[[Path, float], list[Command]]


PYTHON = sys.executable
BUILD = [PYTHON, "setup.py", "--quiet", "build_ext", "--inplace"]
REQUIRED = {"RESERVE_NATIVE": "1", "RESERVE_CUDA": "1"}
"""An ordinary build skips native code that it cannot build; this one must fail."""
BUILD_IF_MISSING = f"""
import subprocess, sys
from reserve_kernels import native
reason = native.cuda_unavailable()
print("the built library loads" if reason is None else f"building the library: {{reason}}", flush=True)
sys.exit(0 if reason is None else subprocess.call({BUILD!r}))
"""


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def gpu_tests() -> list[str]:
    """The test files with tests for a GPU, those of the kernels first.

    The others are not collected: they may import what a GPU machine does not have.
    """
    files = (path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8"))
    named = sorted(files, key=lambda path: ("kernels" not in path.parts, path))
    return [str(path.relative_to(ROOT)) for path in named if path.name != "test_gpu.py"]


def pytest(*arguments: str) -> list[str]:
    """A pytest command for tests of the GPU."""
    timeout = ["--timeout", str(TEST_SECONDS), "--timeout-method", "thread"] if _installed("pytest_timeout") else []
    return [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", *timeout, *arguments]


def _tests(tests: list[str], name: str, out: Path) -> Command:
    """Runs tests in 8 processes if it can. A test that hangs or crashes then costs its process only."""
    workers = ["-n", "8"] if _installed("xdist") else []
    recorded = ["-p", "benchmarks.gpu.record", "--record", str(out / f"{name}.txt")]
    recorded += ["--junitxml", str(out / f"{name}.xml")]
    return Command(name, pytest("-q", *workers, *recorded, *tests))


def _benchmark(name: str, out: Path, tests: str | None = None, peers: str | None = None) -> list[str]:
    chosen = (["--filter", tests] if tests else []) + (["--peers", peers] if peers else [])
    return [PYTHON, "-m", "benchmarks", "--device", "cuda", "--out", str(out), *chosen, name]


MODEL_SHAPES = "test_cuda and not scaling and not grid and not span"
"""The cases of the attention benchmark on joint, vision and audio."""
EAGER_PEERS = "^(reserve|varlen|sdpa_cudnn|SDPA, padded)"


def _attention(out: Path, _: float) -> list[Command]:
    flex = _benchmark("attention", out / "flex", f"{MODEL_SHAPES} and joint", "FlexAttention")
    return [
        Command("attention", _benchmark("attention", out, MODEL_SHAPES, EAGER_PEERS), 2.0),
        # Compiling it takes about as long as everything else.
        Command("attention-flex", flex),
    ]


def _every_benchmark(out: Path, _: float) -> list[Command]:
    from benchmarks.catalogue import GPU_BENCHMARKS

    return [Command(f"bench-{name}", _benchmark(name, out), share) for name, _, share in GPU_BENCHMARKS]


def _contrastive(out: Path, _: float) -> list[Command]:
    shapes = "test_cuda and not scaling and 768 and (4096 or 49152)"
    return [Command("contrastive", _benchmark("contrastive", out, shapes))]


def _small(out: Path, _: float) -> list[Command]:
    return [
        Command("log_mel", _benchmark("log_mel", out, "test_cuda and not scaling")),
        Command("optimizer", _benchmark("optimizer", out)),
        Command("small_ops", _benchmark("small_ops", out), 1.5),
    ]


PROFILED = "forward_kernel|dq_kernel|dkv_kernel|log_mel|adamw|weights_kernel"


def _ncu(out: Path, _: float) -> list[Command]:
    report = str(out / "kernels.ncu-rep")
    profile = ["ncu", "--set", "full", "--clock-control", "none", "--profile-from-start", "off"]
    profile += ["--kernel-name", f"regex:{PROFILED}", "--force-overwrite", "--export", report]
    show = f"ncu --import {report} --page details >{out}/kernels.txt; "
    show += f"ncu --import {report} --page source --csv >{out}/sass.csv"
    return [
        Command("ncu", [*profile, PYTHON, "-m", "benchmarks.gpu.profile"], 4.0),
        Command("ncu-text", ["sh", "-c", show]),
    ]


def _tune(out: Path, seconds: float) -> list[Command]:
    classes = [] if seconds >= PATIENT_SECONDS else ["long", "medium"]
    return [Command("tune", [PYTHON, "-m", "reserve_kernels.attention.tune", *classes], extra=_tuned(out))]


def _tuned(out: Path) -> dict[str, str]:
    """The tuner's file is among the results; the machine's own cache stays as it is."""
    return {"XDG_CACHE_HOME": str(out / "tuned")}


def _attention_tuned(out: Path, _: float) -> list[Command]:
    run = _benchmark("attention", out / "tuned", "test_cuda and forward+backward and not span")
    return [Command("attention-tuned", run, extra=_tuned(out))]


def _train(out: Path, seconds: float) -> list[Command]:
    # The rest is for imports, drawing the model and the first steps.
    run = [PYTHON, "-m", "benchmarks.training_run", "--config", "base", "--minutes", f"{0.35 * seconds / 60:.2f}"]
    return [Command("train", [*run, "--device", "cuda", "--out", str(out)])]


def _sanitize(out: Path, seconds: float) -> list[Command]:
    from reserve_kernels.registry import OPS

    patient = seconds >= PATIENT_SECONDS
    ops = " or ".join(f"test_{op.folder}_cuda" for op in OPS)
    tests = f"({ops}) and not {' and not '.join(UNFIT)}" if patient else f"({') or ('.join(SMALL)})"
    checked = pytest("-q", "tests/kernels", "-k", tests)
    # Separate allocations: otherwise an out-of-bounds access could hit the allocator's next tensor unseen.
    uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    tool = ["compute-sanitizer", "--error-exitcode", "9", "--target-processes", "all", "--tool"]
    tools = ("memcheck", "racecheck") if patient else ("memcheck",)
    return [Command(f"sanitize-{name}", [*tool, name, *checked], extra=uncached) for name in tools]


PARTS = {
    "library": Part(
        "the native library, built if none loads",
        60,
        lambda out, _: [Command("library", [PYTHON, "-c", BUILD_IF_MISSING], extra=REQUIRED)],
    ),
    "facts": Part(
        "versions, back ends, the machine's rates",
        20,
        lambda out, _: [Command("facts", [PYTHON, "-m", "benchmarks.gpu.facts", "--out", str(out)])],
    ),
    "tests": Part("the GPU's tests", 90, lambda out, _: [_tests(gpu_tests(), "tests", out)]),
    "step": Part(
        "variants of the training step",
        90,
        lambda out, _: [Command("step", [PYTHON, "-m", "benchmarks.step_lease", "--out", str(out)])],
    ),
    "attention": Part("attention on the model's shapes", 70, _attention),
    "ncu": Part("hardware counters of five kernels", 40, _ncu),
    "contrastive": Part("the contrastive loss at two sizes", 60, _contrastive),
    "small": Part("log-mel, the optimizer, small ops", 45, _small),
    "tune": Part("the attention kernels' tiles", 60, _tune),
    "build": Part("the native library, built anew", 120, lambda out, _: [Command("build", BUILD, extra=REQUIRED)]),
    "bench": Part("every benchmark in full", 480, _every_benchmark),
    "train": Part("a training run whose loss must fall", 45, _train),
    "tuned": Part("attention with the tuned tiles", 60, _attention_tuned),
    "sanitize": Part("tests under compute-sanitizer", 45, _sanitize),
}
SHORT = ("library", "facts", "tests", "step", "attention", "ncu", "contrastive", "small", "tune")
"""The parts of a short session, the most valuable first."""
FULL = ("build", "tests", "bench", "train")
"""What `make gpu` runs."""
