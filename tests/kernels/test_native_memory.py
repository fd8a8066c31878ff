"""Scratch memory of the CPU back ends, observed by a program that replaces the allocator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from reserve_kernels import native

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
pytestmark = [
    pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable())),
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
]
every_op = pytest.mark.parametrize("op", ["log_mel", "attention"])


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Calls an op in a process in which that many allocations succeed; returns each call's status and allocations."""
    program = tmp_path_factory.mktemp("memory") / "out_of_memory"
    source = Path(__file__).with_name("out_of_memory.cpp")
    # Exported, so that the library finds this posix_memalign first.
    flags = ["-std=c++17", f"-I{ROOT}/csrc/include", "-rdynamic", "-ldl", "-pthread"]
    subprocess.run(["c++", "-o", program, source, *flags], check=True)

    def run(op: str, *, threads: int, allocations: int, calls: int) -> list[list[int]]:
        command = [program, native.library().path, op, *map(str, (threads, allocations, calls))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [[int(number) for number in line.split()] for line in done.stdout.splitlines()]

    return run


@every_op
def test_one_thread_with_memory_does_the_work_of_all(calls, op):
    assert calls(op, threads=4, allocations=1, calls=1) == [[native.OK, 4]]


@every_op
def test_no_memory_for_any_thread_is_reported(calls, op):
    assert calls(op, threads=4, allocations=0, calls=1) == [[native.OUT_OF_MEMORY, 4]]


@every_op
def test_later_calls_find_the_memory_of_all_threads_of_the_first(calls, op):
    assert calls(op, threads=20, allocations=20, calls=3) == [[native.OK, 20], [native.OK, 0], [native.OK, 0]]


@pytest.mark.parametrize(
    ("count", "size", "new"), [(20, MIB, 0), (6, 16 * MIB, 2), (1, 65 * MIB, 1)], ids=["small", "large", "huge"]
)
def test_a_pool_keeps_64_mib_in_all(tmp_path, count, size, new):
    program, source = tmp_path / "scratch_pool", Path(__file__).with_name("scratch_pool.cpp")
    subprocess.run(["c++", "-std=c++17", f"-I{ROOT}/csrc", "-pthread", "-o", program, source], check=True)
    done = subprocess.run([program, str(count), str(size)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == new
