"""log_mel_cuda.cu on a simulated CUDA runtime under ThreadSanitizer: races, and the calls of the host code."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIMULATED = Path(__file__).with_name("simulated_cuda")


def build(folder: Path, *options: str) -> Path:
    """The driver of simulated_cuda/log_mel.cpp, compiled with the sources that it drives."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    program = folder / "log_mel"
    sources = [SIMULATED / "log_mel.cpp", ROOT / "csrc/library.cpp"]
    sources += [
        ROOT / "csrc/log_mel" / f"{name}.cpp" for name in ("twiddles", "mixed_plan", "block_tables", "log_mel_emulated")
    ]
    flags = ["-std=c++17", "-O1", "-g1", "-pthread", "-fsanitize=thread", "-DRESERVE_HAVE_CUDA", *options]
    include = [f"-I{folder}" for folder in (SIMULATED, ROOT / "csrc/include", ROOT / "csrc", ROOT / "csrc/log_mel")]
    done = subprocess.run(["c++", *flags, *include, "-o", program, *sources], capture_output=True, text=True)
    if "tsan" in done.stderr:
        pytest.skip("this compiler has no ThreadSanitizer")
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("driver"))


def run(program: Path, what: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, what], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("what", ["races", "values"])
def test_threads_of_a_block_do_not_race_and_give_what_the_emulation_gives(driver, what):
    done = run(driver, what)
    assert done.returncode == 0, done.stderr


def test_a_missing_barrier_would_be_seen(tmp_path):
    done = run(build(tmp_path, "-DWITHOUT_SYNCWARP"), "races")
    assert "data race" in done.stderr


def test_host_threads_with_different_hops_leave_each_other_enough_shared_memory(driver):
    done = run(driver, "limit")
    assert done.returncode == 0, done.stderr


def test_cuda_errors_have_their_own_messages(driver):
    done = run(driver, "errors")
    assert done.returncode == 0, done.stderr
