"""The steps of `make gpu`: one that fails or hangs is named, and the rest goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from benchmarks import gpu_run

PYTHON = sys.executable


def python(code: str) -> list[str]:
    return [PYTHON, "-c", code]


def test_output_goes_to_a_log_and_its_end_to_the_summary(tmp_path):
    done = gpu_run.run(
        "step", python("import os; print('one'); print(os.environ['TOLD'])"), 60, {"TOLD": "two"}, tmp_path
    )
    assert (done["status"], done["last_line"]) == ("ok", "two")
    assert (tmp_path / "step.log").read_text() == "one\ntwo\n"


def test_a_failure_gives_its_status(tmp_path):
    assert gpu_run.run("step", python("raise SystemExit(7)"), 60, {}, tmp_path)["status"] == "failed with status 7"


def test_a_missing_tool_is_named(tmp_path):
    assert "no-such-tool" in gpu_run.run("step", ["no-such-tool"], 60, {}, tmp_path)["status"]


def test_a_step_at_its_limit_may_still_write_what_it_has(tmp_path):
    code = f"""
import time
try:
    print("started")
    time.sleep(600)
except KeyboardInterrupt:
    open({str(tmp_path / "kept")!r}, "w").write("figures")
"""
    done = gpu_run.run("step", python(code), 5, {}, tmp_path)
    assert "stopped at its limit" in done["status"]
    assert (tmp_path / "kept").read_text() == "figures"


def test_a_step_that_does_not_listen_is_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_run, "GRACE_SECONDS", 1)
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    start = time.monotonic()
    assert "stopped at its limit" in gpu_run.run("step", python(code), 3, {}, tmp_path)["status"]
    assert time.monotonic() - start < 60


def test_steps_go_on_after_a_failure(tmp_path, monkeypatch, capsys):
    steps = {"build": python("raise SystemExit(3)"), "test": python("print('42 passed')")}
    monkeypatch.setattr(gpu_run, "commands", lambda step, out: [(step, steps[step], 60.0, {})])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    assert gpu_run.main(["build", "test", "--out", str(tmp_path)]) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(s["step"], s["status"]) for s in summary["steps"]] == [("build", "failed with status 3"), ("test", "ok")]
    assert "42 passed" in capsys.readouterr().out


@pytest.mark.parametrize("step", gpu_run.STEPS + gpu_run.OTHER_STEPS)
def test_a_step_takes_less_than_nine_minutes(step, tmp_path):
    commands = gpu_run.commands(step, tmp_path)
    assert sum(seconds for _, _, seconds, _ in commands) <= gpu_run.STEP_SECONDS < 540


@pytest.mark.parametrize("name", gpu_run.BENCHMARKS)
def test_benchmarks_have_a_part_for_the_gpu(name):
    command = [PYTHON, "-m", "pytest", "-q", "--collect-only", "-m", "gpu", f"benchmarks/{name}.py"]
    assert subprocess.run(command, cwd=gpu_run.ROOT, capture_output=True, check=False).returncode == 0


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


def test_tests_and_benchmarks_of_the_gpu_need_nothing_but_the_core():
    code = COLLECT.format(absent=ABSENT, benchmarks=[f"benchmarks/{name}.py" for name in gpu_run.BENCHMARKS])
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [PYTHON, "-c", code], cwd=gpu_run.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_an_unknown_step_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu_run.main(["fly"])
    assert "no step 'fly'; there are build, test, bench, train, sanitize" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu_is_said(capsys):
    assert gpu_run.main([]) == 1
    assert "no CUDA device" in capsys.readouterr().err
