"""The steps of `make gpu`: one that fails or hangs is reported, and the others still run."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmarks import gpu_run
from benchmarks.catalogue import GPU_BENCHMARKS
from reserve_kernels.registry import OPS

PYTHON = sys.executable


def python(code: str) -> list[str]:
    return [PYTHON, "-c", code]


def run(code: str, folder, seconds: float = 600, **extra: str) -> dict:
    return gpu_run.run(gpu_run.Command("step", python(code), extra=extra), seconds, folder / "step.log")


def test_output_goes_to_a_log_and_its_end_to_the_summary(tmp_path):
    done = run("import os; print('one'); print(os.environ['ADDED'])", tmp_path, ADDED="two")
    assert (done["status"], done["last_line"]) == ("ok", "two")
    assert (tmp_path / "step.log").read_text() == "one\ntwo\n"


def test_the_commands_of_a_step_share_a_log_and_have_their_own_last_lines(tmp_path):
    run("print('first')", tmp_path)
    assert run("pass", tmp_path)["last_line"] == ""
    assert run("print('third')", tmp_path)["last_line"] == "third"
    assert (tmp_path / "step.log").read_text() == "first\nthird\n"


def test_a_failure_gives_its_status(tmp_path):
    assert run("raise SystemExit(7)", tmp_path)["status"] == "failed with status 7"


def test_a_missing_tool_is_named(tmp_path):
    done = gpu_run.run(gpu_run.Command("step", ["no-such-tool"]), 600, tmp_path / "step.log")
    assert "no-such-tool" in done["status"]


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


@pytest.fixture
def a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")


@pytest.mark.usefixtures("a_gpu")
def test_steps_go_on_after_a_failure(tmp_path, monkeypatch, capsys):
    steps = {"build": python("raise SystemExit(3)"), "test": python("print('42 passed')")}
    monkeypatch.setattr(gpu_run, "commands", lambda step, out: [gpu_run.Command(step, steps[step])])
    assert gpu_run.main(["build", "test", "--out", str(tmp_path)]) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(s["step"], s["status"]) for s in summary["steps"]] == [("build", "failed with status 3"), ("test", "ok")]
    assert "42 passed" in capsys.readouterr().out


@pytest.mark.usefixtures("a_gpu")
def test_separate_runs_share_a_summary(tmp_path, monkeypatch):
    for code, step in (("print('old')", "test"), ("print('built')", "build"), ("print('new')", "test")):
        monkeypatch.setattr(gpu_run, "commands", lambda step, out, code=code: [gpu_run.Command(step, python(code))])
        assert gpu_run.main([step, "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(s["step"], s["last_line"]) for s in summary["steps"]] == [("test", "new"), ("build", "built")]


@pytest.mark.usefixtures("a_gpu")
def test_the_summary_is_written_after_each_step(tmp_path, monkeypatch):
    def interrupted(command, seconds, log):
        if command.name == "test":
            raise KeyboardInterrupt
        return {"step": command.name, "status": "ok"}

    monkeypatch.setattr(gpu_run, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gpu_run.main(["build", "test", "--out", str(tmp_path)])
    assert [s["step"] for s in json.loads((tmp_path / "summary.json").read_text())["steps"]] == ["build"]


def limits_of(step, folder, monkeypatch, taken: float) -> list[float]:
    """The limit of each command of a step, if each takes the fraction `taken` of it (1: the grace period too)."""
    now, limits = [1000.0], []

    def run(command, seconds, log):
        limits.append(seconds)
        now[0] += taken * seconds + (gpu_run.GRACE_SECONDS if taken == 1 else 0)
        return {}

    monkeypatch.setattr(gpu_run, "run", run)
    monkeypatch.setattr(gpu_run.time, "monotonic", lambda: now[0])
    list(gpu_run.run_step(step, folder))
    assert now[0] - 1000 <= gpu_run.STEP_SECONDS
    return limits


@pytest.mark.parametrize("step", gpu_run.STEPS + gpu_run.OTHER_STEPS)
def test_a_step_takes_less_than_nine_minutes_also_if_all_run_into_their_limits(step, tmp_path, monkeypatch):
    limits = limits_of(step, tmp_path, monkeypatch, taken=1)
    assert min(limits) >= 10
    assert gpu_run.STEP_SECONDS < 540


def test_unused_time_goes_to_the_next(tmp_path, monkeypatch):
    full = limits_of("bench", tmp_path, monkeypatch, taken=0.99)
    early = limits_of("bench", tmp_path, monkeypatch, taken=0.5)
    assert early[0] == full[0]
    assert early[1] > 1.3 * full[1]


def test_the_build_step_requires_the_native_ops(tmp_path):
    (command,) = gpu_run.commands("build", tmp_path)
    assert command.extra == {"RESERVE_NATIVE": "1", "RESERVE_CUDA": "1"}


COLLECT = """
import sys
for name in {absent!r}:
    sys.modules[name] = None
import pytest
options = ["-q", "--collect-only", "-p", "pytest_benchmark.plugin", "-m", "gpu"]
sys.exit(pytest.main([*options, "tests/kernels", *{benchmarks!r}]))
"""
ABSENT = ["PIL", "av", "jinja2", "jsonargparse", "librosa", "matplotlib", "rich", "safetensors", "tokenizers", "yaml"]
ABSENT += ["huggingface_hub", "msgpack", "tensorboard", "threadpoolctl"]


@pytest.fixture(scope="module")
def collected() -> subprocess.CompletedProcess[str]:
    """What pytest collects of the GPU's tests and benchmarks where nothing but the core is installed."""
    benchmarks = [f"benchmarks/{benchmark.name}.py" for benchmark in GPU_BENCHMARKS]
    return subprocess.run(
        python(COLLECT.format(absent=ABSENT, benchmarks=benchmarks)),
        cwd=gpu_run.ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_tests_and_benchmarks_of_the_gpu_need_nothing_but_the_core(collected):
    assert collected.returncode == 0, collected.stdout[-3000:]


@pytest.mark.parametrize("name", [benchmark.name for benchmark in GPU_BENCHMARKS])
def test_benchmarks_have_a_part_for_the_gpu(collected, name):
    assert re.search(rf"^benchmarks/{name}\.py::", collected.stdout, re.MULTILINE)


def test_the_sanitizer_runs_tests_of_every_op_and_skips_what_it_cannot_run(collected, tmp_path):
    """It skips huge tensors, tilings one by one, graphs and compilation, by the names of their tests."""
    command = gpu_run.commands("sanitize", tmp_path)[0].command
    pytest_command = [*command[command.index(PYTHON) :], "--collect-only"]
    done = subprocess.run(pytest_command, cwd=gpu_run.ROOT, capture_output=True, text=True, check=True)
    names = [line.rpartition("/")[2] for line in done.stdout.splitlines() if "::" in line]
    assert {name.partition("::")[0] for name in names} == {f"test_{op.folder}_cuda.py" for op in OPS}
    for part in gpu_run.UNFIT:
        assert part in collected.stdout, f"no test's name contains {part!r}"
    for huge in ("2_to_the_31", "two_to_the_31", "as_one_graph"):
        assert huge in collected.stdout
        assert not [name for name in names if huge in name]


def test_an_unknown_step_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu_run.main(["fly"])
    assert "no step 'fly'; choose from build, test, bench, train, tune, sanitize" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu_is_said(capsys):
    assert gpu_run.main([]) == 1
    assert "no CUDA device" in capsys.readouterr().err
