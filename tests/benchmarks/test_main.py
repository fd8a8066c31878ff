"""`python -m benchmarks`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from benchmarks import __main__ as command_module


def test_every_benchmark_is_a_file_and_every_file_listed():
    folder = command_module.ROOT / "benchmarks"
    with_tests = {path.stem for path in folder.glob("*.py") if "def test_" in path.read_text()}
    assert with_tests == command_module.BENCHMARKS.keys()


def test_listing_filters_and_runs_nothing(capfd):
    assert command_module.main(["attention", "--list", "--filter", "joint and backward and padded"]) == 0
    listed = capfd.readouterr().out
    assert "test_cpu[SDPA, padded and masked-joint-forward+backward-1]" in listed
    assert "vision" not in listed
    assert "test_cuda" not in listed


def test_slow_cases_run_on_request(capfd):
    step = ["training_step", "--list", "--filter", "test_cpu"]
    assert command_module.main(step) == 0
    assert "base, 1 example-" not in capfd.readouterr().out
    assert command_module.main([*step, "--slow"]) == 0
    listed = capfd.readouterr().out
    assert "test_cpu[base, 1 example-padded, compiled layers-2]" in listed
    assert "test_cpu[demo, 8 examples-reserve-1]" in listed


def test_peers_are_chosen_by_a_pattern(capfd):
    assert command_module.main(["attention", "--list", "--filter", "joint", "--peers", "loop$"]) == 0
    listed = re.findall(r"test_cpu\[(.+?)-joint", capfd.readouterr().out)
    assert set(listed) == {"reserve", "SDPA, loop"}


def test_the_implementations_of_a_case_follow_one_another(capfd):
    """An interrupted run then has the peers of every case but the last."""
    assert command_module.main(["contrastive", "--list", "--device", "cuda"]) == 0
    listed = re.findall(r"test_cuda\[([^(]+)-\((.+)\)\]", capfd.readouterr().out)
    shapes = [shape for _, shape in listed]
    assert [shape for i, shape in enumerate(shapes) if i == 0 or shapes[i - 1] != shape] == list(dict.fromkeys(shapes))
    assert len(dict.fromkeys(shapes)) > 3
    assert listed[0][0] == "reserve"


def test_a_quick_run_stores_both_sides_of_a_case(tmp_path, capfd):
    span = "span and forward and not backward and -1]"
    assert command_module.main(["attention", "--quick", "--filter", span, "--out", str(tmp_path)]) == 0
    # Each figure is printed when it is known, also if the run ends before it stores them.
    figure = r"^rotary_attention, CPU, 1 thread, span, forward: (.+) [\d.]+ us, [\d.]+ of ours"
    printed = re.findall(figure, capfd.readouterr().out, re.MULTILINE)
    record = json.loads((tmp_path / "attention.json").read_text())
    stored = {b["extra_info"]["implementation"]: b for b in record["benchmarks"]}
    assert {"reserve", "SDPA, loop", "SDPA, padded and masked", "SDPA, block mask"} == stored.keys() == set(printed)
    ours = stored["reserve"]
    assert ours["stats"]["rounds"] == 3
    assert ours["extra_info"]["flops"] > 0
    assert ours["extra_info"]["copy_bytes_per_s"] > 0
    assert record["machine_info"]["versions"]["torch"]
    assert "node" not in record["machine_info"]
    # What changes from run to run would keep --benchmark-compare from seeing one machine.
    assert "load_average" in record
    assert "load_average" not in record["machine_info"]


def test_an_interrupted_run_stores_what_it_has(tmp_path):
    """Also if it starts with SIGINT ignored, as under nohup, in a shell's background job or on a CI runner."""
    arguments = ["attention", "--filter", "span and -1]", "--out", str(tmp_path)]
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "benchmarks", *arguments]
    command += ["--", "-p", "interrupts"]
    plugin = "import os, signal\ndef pytest_runtest_logreport(report):\n"
    plugin += "    if report.when == 'teardown': os.killpg(0, signal.SIGINT)\n"
    (tmp_path / "interrupts.py").write_text(plugin)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        command, cwd=command_module.ROOT, env=environment, capture_output=True, start_new_session=True, check=False
    )
    assert done.returncode == 130
    assert len(json.loads((tmp_path / "attention.json").read_text())["benchmarks"]) == 1


def test_nothing_that_matches_is_an_error(capfd):
    assert command_module.main(["attention", "--list", "--filter", "nosuchcase"]) == command_module.NOTHING_COLLECTED
    assert "no test matches; see --list, --device and --filter" in capfd.readouterr().err


@pytest.mark.parametrize(("statuses", "expected"), [((5, 0), 0), ((0, 5), 0), ((5, 1), 1), ((5, 5), 5)])
def test_a_benchmark_without_a_match_counts_only_if_there_is_no_other(monkeypatch, statuses, expected):
    remaining = iter(statuses)
    monkeypatch.setattr(command_module, "_run", lambda command, environment: next(remaining))
    assert command_module.main(["attention", "log_mel", "--list", "--filter", "librosa and 1]"]) == expected


def test_a_histogram_is_refused_before_and_not_after_the_run(monkeypatch, capsys):
    monkeypatch.setattr(command_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        command_module.main(["attention", "--", "--benchmark-histogram"])
    assert "pip install 'pytest-benchmark[histogram]'" in capsys.readouterr().err


def test_results_of_cpu_and_gpu_of_a_machine_lie_apart(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert command_module.machine_name("cuda") == "nvidia-h200"
    assert "nvidia" not in command_module.machine_name("cpu")
    assert command_module.machine_name("cpu").endswith("-cores")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "no benchmark 'nope'; choose from attention, contrastive"),
        (["--quick", "--save"], "--save needs full runs"),
        (["--device", "all", "--save"], "--save needs --device cpu or cuda"),
        (["--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command_module.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
