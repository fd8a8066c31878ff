"""benchmarks/lease.sh from start to end, with parts that work, fail, hang and are killed in place of the real ones."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from benchmarks.gpu.parts import ROOT

STAND_IN = """
import sys
from pathlib import Path

from benchmarks.gpu import __main__ as command_module, run
from benchmarks.gpu.parts import Command, Part

OUT, RESULTS = Path({out!r}), Path({results!r})
START = "import os, pathlib, signal, sys, time; from benchmarks.gpu.parts import ROOT; "
START += f"out, results = pathlib.Path({{str(OUT)!r}}), pathlib.Path({{str(RESULTS)!r}}); "
CODES = {{
    "works": "(results / 'figures.json').write_text('[1]'); print('worked')",
    "fails": "print('about to fail'); raise SystemExit(3)",
    "hangs": "signal.signal(signal.SIGINT, signal.SIG_IGN); print('hangs', flush=True); time.sleep(6000)",
    "dies": "print('dies', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
    # What one would get if all ended while this part runs.
    "looks": "import tarfile; print(sorted(tarfile.open(out / 'results.tar.gz').getnames()))",
    "waits": "(results / 'half.json').write_text('[2]'); (results / 'pid').write_text(str(os.getpid()));"
    "print('waits', flush=True); time.sleep(6000)",
}}
run.GRACE_SECONDS = 1.0
command_module.gpu = lambda: "A GPU"
command_module.SESSION = RESULTS
command_module.PARTS.clear()
for name, code in CODES.items():
    command = Command(name, [sys.executable, "-c", START + code])
    command_module.PARTS[name] = Part("", 4 if name == "hangs" else 240, lambda _, command=command: [command])
assert sys.argv[1:3] == ["-m", "benchmarks.gpu"]
sys.exit(command_module.main(sys.argv[3:]))
"""


@pytest.fixture
def lease(tmp_path):
    """Starts lease.sh for some parts, from another folder than the repository's, and returns the process."""
    script, python, out = tmp_path / "stand_in.py", tmp_path / "python", tmp_path / "out"
    script.write_text(STAND_IN.format(out=str(out), results=str(tmp_path / "results")))
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    python.chmod(0o755)
    command = ["bash", str(ROOT / "benchmarks" / "lease.sh"), "--out", str(out)]

    def start(*parts: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHON": str(python)}
        return subprocess.Popen([*command, *parts], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)

    return start


def contents(tmp_path) -> dict[str, str]:
    """The files of the archive. Fails if it is not whole, or if the output folder has more than may be sent back."""
    out = tmp_path / "out"
    assert len(list(out.rglob("*"))) <= 8
    assert all(path.parent == out for path in out.rglob("*"))
    with tarfile.open(out / "results.tar.gz") as packed:
        return {name: packed.extractfile(name).read().decode() for name in packed.getnames()}


def statuses(tmp_path) -> dict[str, str]:
    gpu, *lines = (tmp_path / "out" / "summary.txt").read_text().splitlines()
    assert gpu == "A GPU"
    return {name: status.strip() for name, _, status in (line.partition(" ") for line in lines)}


def test_a_part_that_fails_hangs_or_dies_costs_itself_only(lease, tmp_path):
    process = lease("fails", "works", "hangs", "looks", "dies", "works")
    printed, _ = process.communicate()
    assert process.returncode == 1
    found = statuses(tmp_path)
    assert found.keys() == {"fails", "works", "hangs", "looks", "dies"}
    assert found["fails"].startswith("failed with status 3")
    assert found["fails"].endswith("about to fail")
    assert found["works"].startswith("ok")
    assert re.match(r"stopped at its limit of [0-3] s", found["hangs"])
    assert found["dies"].startswith("failed with status -9")
    assert all(status in printed for status in found.values())
    packed = contents(tmp_path)
    assert packed["figures.json"] == "[1]"
    assert packed["dies.log"] == "dies\n"
    # Each part was packed when it had ended.
    assert packed["looks.log"] == "['fails.log', 'figures.json', 'hangs.log', 'summary.json', 'works.log']\n"


def ended(process: int) -> bool:
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    found, _, _ = select.select([descriptor], [], [], 600)
    os.close(descriptor)
    return bool(found)


@pytest.fixture
def waiting(lease, tmp_path):
    """A session whose first part is done and whose second waits forever, and the second's process."""
    process, pid = lease("works", "waits", "looks"), tmp_path / "results" / "pid"
    while "waits\n" not in ((tmp_path / "results" / "waits.log").read_text() if pid.exists() else ""):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    yield process, int(pid.read_text())
    process.kill()
    process.communicate()
    if not ended_already(int(pid.read_text())):
        os.kill(int(pid.read_text()), signal.SIGKILL)


def ended_already(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd")
def test_a_session_that_is_killed_leaves_a_whole_archive_of_the_parts_before(waiting, tmp_path):
    session, _ = waiting
    session.kill()
    session.wait()
    packed = contents(tmp_path)
    assert packed["figures.json"] == "[1]"
    assert "waits.log" not in packed
    assert statuses(tmp_path).keys() == {"works"}


@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd")
def test_a_session_that_is_ended_packs_what_the_part_has_and_ends_it(waiting, tmp_path):
    session, part = waiting
    session.terminate()
    assert session.wait() == 143
    assert ended(part)
    packed = contents(tmp_path)
    assert packed["half.json"] == "[2]"
    assert packed["waits.log"] == "waits\n"
