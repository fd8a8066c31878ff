"""The commands of a part: one that fails or hangs is reported, and ends with everything that it has started."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import run as gpu_run
from benchmarks.gpu.parts import Command

PYTHON = sys.executable


def python(code: str) -> list[str]:
    return [PYTHON, "-c", code]


def run(code: str, folder, seconds: float = 600, **extra: str) -> dict:
    return gpu_run.run(Command("step", python(code), extra=extra), seconds, folder / "step.log")


def test_output_goes_to_a_log_and_its_end_to_the_summary(tmp_path):
    done = run("import os; print('one'); print(os.environ['ADDED'])", tmp_path, ADDED="two")
    assert (done["status"], done["last_line"]) == ("ok", "two")
    assert (tmp_path / "step.log").read_text() == "one\ntwo\n"


def test_the_commands_of_a_part_share_a_log_and_have_their_own_last_lines(tmp_path):
    run("print('first')", tmp_path)
    assert run("pass", tmp_path)["last_line"] == ""
    assert run("print('third')", tmp_path)["last_line"] == "third"
    assert (tmp_path / "step.log").read_text() == "first\nthird\n"


def test_a_failure_gives_its_status(tmp_path):
    assert run("raise SystemExit(7)", tmp_path)["status"] == "failed with status 7"


def test_a_missing_tool_is_named(tmp_path):
    done = gpu_run.run(Command("step", ["no-such-tool"]), 600, tmp_path / "step.log")
    assert "no-such-tool" in done["status"]


def test_two_processes_may_make_the_folder_of_imports_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_run, "ROOT", tmp_path)
    monkeypatch.setattr(Path, "exists", lambda self: False)  # as each finds before the other has made the link
    assert gpu_run.import_folder() == gpu_run.import_folder()
    assert (tmp_path / "build" / "gpu" / "reserve_kernels").readlink() == Path("../../kernels")


LIMIT = 12345.0


@pytest.fixture
def limit_after_start(tmp_path, monkeypatch):
    """Makes a step reach LIMIT, its limit, once it has printed "started", however long that takes."""

    class Process(subprocess.Popen):
        def wait(self, timeout=None):
            if timeout != LIMIT:
                return super().wait(timeout)
            while "started" not in (tmp_path / "step.log").read_text():
                assert self.poll() is None, (tmp_path / "step.log").read_text()
                time.sleep(0.01)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(subprocess, "Popen", Process)


@pytest.fixture
def ignored_interrupts():
    """SIGINT as nohup, a shell's background job or a CI runner leaves it to the programs that they start."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("limit_after_start", "ignored_interrupts")
def test_a_step_at_its_limit_may_still_write_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_run, "GRACE_SECONDS", 3600)
    code = f"""
import time
try:
    print("started")
    time.sleep(6000)
except KeyboardInterrupt:
    open({str(tmp_path / "kept")!r}, "w").write("figures")
"""
    assert "stopped at its limit" in run(code, tmp_path, LIMIT)["status"]
    assert (tmp_path / "kept").read_text() == "figures"


def wait_until_gone(process: int) -> None:
    """Waits until the process of this id has ended; fails if it does not."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([descriptor], [], [], 600)
    os.close(descriptor)
    assert ended, f"process {process} still runs"


IGNORES = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('started', flush=True);"


@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd")
@pytest.mark.usefixtures("limit_after_start")
def test_a_step_that_ignores_interrupts_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_run, "GRACE_SECONDS", 0.1)
    code = f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); {IGNORES} time.sleep(6000)"
    assert "stopped at its limit" in run(code, tmp_path, LIMIT)["status"]
    wait_until_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd")
@pytest.mark.usefixtures("limit_after_start")
@pytest.mark.parametrize("end", ["time.sleep(6000)", "pass"], ids=["at its limit", "at its end"])
def test_what_a_step_leaves_behind_ends_with_it(end, tmp_path):
    """A child that ignores the interrupt would run beside the next step."""
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {IGNORES + "time.sleep(6000)"!r}], stdout=subprocess.PIPE)
child.stdout.readline()
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
{"print('started')" if "sleep" in end else ""}
{end}
"""
    done = run(code, tmp_path, LIMIT if "sleep" in end else 600)
    assert ("limit" in done["status"]) == ("sleep" in end)
    wait_until_gone(int((tmp_path / "child").read_text()))


def limits_of(commands, folder, monkeypatch, taken: float, seconds: float = 100) -> list[float]:
    """The limit of each command of a part, if each takes the fraction `taken` of it (1: the grace period too)."""
    now, limits = [1000.0], []

    def run(command, limit, log):
        limits.append(limit)
        now[0] += taken * limit + (gpu_run.GRACE_SECONDS if taken == 1 else 0)
        return {}

    monkeypatch.setattr(gpu_run, "run", run)
    monkeypatch.setattr(gpu_run.time, "monotonic", lambda: now[0])
    list(gpu_run.run_part("part", commands, seconds, folder))
    assert now[0] - 1000 <= seconds
    return limits


THREE = [Command("a", [], 3.0), Command("b", []), Command("c", [])]


def test_commands_share_the_time_of_their_part(tmp_path, monkeypatch):
    assert limits_of(THREE, tmp_path, monkeypatch, taken=1, seconds=110) == [60, 15, 5]


def test_unused_time_goes_to_the_next(tmp_path, monkeypatch):
    assert limits_of(THREE, tmp_path, monkeypatch, taken=0.5, seconds=110) == [60, 35, 52.5]


def test_a_command_without_time_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_run, "GRACE_SECONDS", 50)
    done = gpu_run.run_part("part", THREE, 50.5, tmp_path)
    assert {entry["status"] for entry in done} == {"skipped: the part's time is over"}
