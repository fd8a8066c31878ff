"""The parts of a session on a GPU machine: what each runs and for how long.

The commands of a part share its time.
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
SMALL = ("without_position", "unaligned_tensors", "37-11-31 and triton", "runs_in_the_current_stream", "without_a_bias")
"""Parts of the names of a few small tests, at least one an op, for a short run under the sanitizer."""


class Command(NamedTuple):
    """One command of a part. `share`: its share of the part's remaining time; `extra`: environment variables."""

    name: str
    command: list[str]
    share: float = 1.0
    extra: dict[str, str] = {}  # noqa: RUF012  # never changed


class Session(NamedTuple):
    """What a part is run with: the folder of its results, whether it has its short limit, and the tests to run."""

    out: Path
    short: bool = False
    tests: tuple[str, ...] = ()
    """pytest's arguments for the part `tests`; empty: all tests for a GPU."""


class Part(NamedTuple):
    """What a part does, its limit in a short session (shutdown included), and its commands."""

    purpose: str
    seconds: int
    commands: Callable[[Session], list[Command]]


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
    files = (path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text("utf-8"))
    named = sorted(files, key=lambda path: ("kernels" not in path.parts, path))
    return [str(path.relative_to(ROOT)) for path in named]


def pytest(*arguments: str) -> list[str]:
    """A pytest command for tests of the GPU."""
    timeout = ["--timeout", str(TEST_SECONDS), "--timeout-method", "thread"] if _installed("pytest_timeout") else []
    return [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", *timeout, *arguments]


def _tests(session: Session) -> list[Command]:
    """In 8 processes if pytest-xdist is installed: a test that hangs or crashes then costs its process only."""
    options = ["-n", "8"] if _installed("xdist") else []
    # A file that cannot be imported would otherwise keep all tests from running.
    options.append("--continue-on-collection-errors")
    recorded = ["-p", "benchmarks.gpu.record", "--record", str(session.out / "tests.txt")]
    recorded += ["--junitxml", str(session.out / "tests.xml")]
    return [Command("tests", pytest("-q", *options, *recorded, *(session.tests or gpu_tests())))]


def _step(session: Session) -> list[Command]:
    return [Command("step", [PYTHON, "-m", "benchmarks.step_lease", "--seconds", "112", "--out", str(session.out)])]


def _decoding(session: Session) -> list[Command]:
    run = [PYTHON, "-m", "benchmarks.decoding_lease", "--seconds", "125", "--out", str(session.out)]
    return [Command("decoding", run)]


def _benchmark(name: str, out: Path, tests: str | None = None, peers: str | None = None) -> list[str]:
    chosen = (["--filter", tests] if tests else []) + (["--peers", peers] if peers else [])
    return [PYTHON, "-m", "benchmarks", "--device", "cuda", "--out", str(out), *chosen, name]


MODEL_SHAPES = "test_cuda and not scaling and not grid and not span"
"""The cases of the attention benchmark on joint, vision and audio."""
EAGER_PEERS = "^(reserve|varlen|flash_attn(_3)?(,|$)|xformers|sdpa_cudnn|SDPA, padded)"
"""Those that need no compilation of many seconds. Libraries that are not installed are skipped."""
COMPILING_PEERS = "^(FlexAttention|flash_attn_4(,|$))"
"""The others."""


def _attention(session: Session) -> list[Command]:
    return [Command("attention", _benchmark("attention", session.out, MODEL_SHAPES, EAGER_PEERS))]


def _flex(session: Session) -> list[Command]:
    """Both passes, which have a bar, before the forward pass: compiling them takes about as long as everything else."""
    both, forward = (f"{MODEL_SHAPES} and joint and {passes}" for passes in ("backward", "not backward"))
    return [
        Command("flex", _benchmark("attention", session.out / "flex", both, COMPILING_PEERS), 2.0),
        Command("flex-forward", _benchmark("attention", session.out / "flex-forward", forward, COMPILING_PEERS)),
    ]


def _every_benchmark(session: Session) -> list[Command]:
    from benchmarks.catalogue import GPU_BENCHMARKS

    return [Command(f"bench-{name}", _benchmark(name, session.out), share) for name, _, share in GPU_BENCHMARKS]


def _contrastive(session: Session) -> list[Command]:
    """Every implementation, at the size that decides what "auto" picks before the smaller one."""
    large, small = ("test_cuda and not scaling and 768 and 49152", "test_cuda and not scaling and 768 and 4096")
    return [
        Command("contrastive", _benchmark("contrastive", session.out, large), 2.0),
        Command("contrastive-4096", _benchmark("contrastive", session.out / "contrastive-4096", small)),
    ]


def _small(session: Session) -> list[Command]:
    # What compiles comes last: it takes the time that the others leave.
    return [
        Command("optimizer", _benchmark("optimizer", session.out)),
        Command("log_mel", _benchmark("log_mel", session.out, "test_cuda and not scaling")),
        Command("small_ops", _benchmark("small_ops", session.out, "quick and GELU"), 2.0),
    ]


PROFILED = "forward_kernel|dq_kernel|dkv_kernel|log_mel|adamw|weights_kernel"


def _ncu(session: Session) -> list[Command]:
    report = str(session.out / "kernels.ncu-rep")
    profile = ["ncu", "--set", "full", "--clock-control", "none", "--profile-from-start", "off"]
    profile += ["--kernel-name", f"regex:{PROFILED}", "--force-overwrite", "--export", report]
    show = f"ncu --import {report} --page details >{session.out}/kernels.txt; "
    show += f"ncu --import {report} --page source --csv >{session.out}/sass.csv"
    return [
        Command("ncu", [*profile, PYTHON, "-m", "benchmarks.gpu.profile"], 6.0),
        Command("ncu-text", ["sh", "-c", show]),
    ]


def _tune(session: Session) -> list[Command]:
    # Joint, vision, and audio and spans.
    classes = ["long", "medium", "tiny"] if session.short else []
    return [Command("tune", [PYTHON, "-m", "reserve_kernels.attention.tune", *classes], extra=_tuned(session.out))]


def _tuned(out: Path) -> dict[str, str]:
    """The tuner's file is among the results; the machine's own cache stays as it is."""
    return {"XDG_CACHE_HOME": str(out / "tuned")}


def _attention_tuned(session: Session) -> list[Command]:
    """Ours only: the part `attention` has the peers, and ours with the library's choices."""
    run = _benchmark("attention", session.out / "tuned", MODEL_SHAPES, "^reserve$")
    return [Command("attention-tuned", run, extra=_tuned(session.out))]


def _train(session: Session) -> list[Command]:
    minutes = "0.3" if session.short else "3"
    run = [PYTHON, "-m", "benchmarks.training_run", "--config", "base", "--minutes", minutes]
    return [Command("train", [*run, "--device", "cuda", "--out", str(session.out)])]


def _sanitize(session: Session) -> list[Command]:
    tests, tools = f"({') or ('.join(SMALL)})", ["memcheck"]
    if not session.short:
        from reserve_kernels.registry import OPS

        ops = " or ".join(f"test_{op.folder}_cuda" for op in OPS)
        tests, tools = f"({ops}) and not {' and not '.join(UNFIT)}", ["memcheck", "racecheck"]
    # Separate allocations: otherwise an out-of-bounds access could hit the allocator's next tensor unseen.
    uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    checker = ["compute-sanitizer", "--error-exitcode", "9", "--target-processes", "all", "--tool"]
    checked = pytest("-q", "tests/kernels", "-k", tests)
    return [Command(f"sanitize-{tool}", [*checker, tool, *checked], extra=uncached) for tool in tools]


PARTS = {
    "library": Part(
        "the native library, built if none loads",
        45,
        lambda session: [Command("library", [PYTHON, "-c", BUILD_IF_MISSING], extra=REQUIRED)],
    ),
    "facts": Part(
        "versions, back ends, the machine's rates",
        30,
        lambda session: [Command("facts", [PYTHON, "-m", "benchmarks.gpu.facts", "--out", str(session.out)])],
    ),
    "tests": Part("the GPU's tests", 90, _tests),
    "step": Part("variants of the training step", 125, _step),
    "decoding": Part("video decoders, and frames and pictures through DALI", 150, _decoding),
    "attention": Part("attention on the model's shapes, against every library", 60, _attention),
    "flex": Part("FlexAttention and FlashAttention-4 on the joint shape", 50, _flex),
    "ncu": Part("hardware counters of the main kernels", 60, _ncu),
    "contrastive": Part("the contrastive loss at two sizes", 75, _contrastive),
    "small": Part("the optimizer, log-mel, bias and GELU", 80, _small),
    "tune": Part("the attention kernels' tiles", 60, _tune),
    "build": Part("the native library, built anew", 120, lambda session: [Command("build", BUILD, extra=REQUIRED)]),
    "bench": Part("every benchmark in full", 480, _every_benchmark),
    "train": Part("a training run whose loss must fall", 45, _train),
    "tuned": Part("attention with the tuned tiles", 30, _attention_tuned),
    "sanitize": Part("tests under compute-sanitizer", 45, _sanitize),
}
SHORT = ("library", "facts", "small", "contrastive", "attention", "flex", "tests", "tune", "tuned", "ncu")
"""The parts of a short session, the most valuable first: what decides between candidates and peers, then the rest.

The tests come before the tuner, which then finds its kernels compiled. "step" and "decoding" are for a second session.
"""
FULL = ("build", "tests", "bench", "train")
"""What `make gpu` runs."""
