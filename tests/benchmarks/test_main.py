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
from tests.helpers.listed_tests import listed_tests


def test_every_benchmark_is_a_file_and_every_file_listed():
    folder = command_module.ROOT / "benchmarks"
    with_tests = {path.stem for path in folder.glob("*.py") if "def test_" in path.read_text()}
    assert with_tests == command_module.BENCHMARKS.keys()


ATTENTION = ["attention", "--filter", "joint and backward and padded"]
STEP = ["training_step", "--filter", "test_cpu"]
SLOW_STEP = [*STEP, "--slow"]
PEERS = ["attention", "--filter", "joint", "--peers", "loop$"]
CONTRASTIVE = ["contrastive", "--device", "cuda"]


@pytest.fixture(scope="module")
def listed():
    """A function of one of the arguments above that returns which tests they choose, as `test[parameters]`."""
    arguments = [ATTENTION, STEP, SLOW_STEP, PEERS, CONTRASTIVE]
    found = listed_tests([[sys.executable, "-m", "benchmarks", *chosen, "--list"] for chosen in arguments])
    return lambda chosen: [test.partition("::")[2] for test in found[arguments.index(chosen)]]


def test_listing_filters_and_runs_nothing(listed):
    assert "test_cpu[SDPA, padded and masked-joint-forward+backward-1]" in listed(ATTENTION)
    assert not [test for test in listed(ATTENTION) if "vision" in test or "test_cuda" in test]


def test_slow_cases_run_on_request(listed):
    assert not [test for test in listed(STEP) if "base, 1 example-" in test]
    assert "test_cpu[base, 1 example-padded, compiled layers-2]" in listed(SLOW_STEP)
    assert "test_cpu[demo, 8 examples-reserve-1]" in listed(SLOW_STEP)


def test_peers_are_chosen_by_a_pattern(listed):
    chosen = {re.match(r"test_cpu\[(.+?)-joint", test)[1] for test in listed(PEERS)}
    assert chosen == {"reserve", "SDPA, loop"}


def test_the_implementations_of_a_case_follow_one_another(listed):
    """An interrupted run then has the peers of every case but the last."""
    found = [re.match(r"test_cuda\[([^(]+)-\((.+)\)\]", test) for test in listed(CONTRASTIVE)]
    shapes = [match[2] for match in found if match]
    assert [shape for i, shape in enumerate(shapes) if i == 0 or shapes[i - 1] != shape] == list(dict.fromkeys(shapes))
    assert len(dict.fromkeys(shapes)) > 3
    assert found[0][1] == "reserve"


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


def test_nothing_that_matches_is_an_error(monkeypatch, capsys):
    status = pytest.ExitCode.NO_TESTS_COLLECTED
    monkeypatch.setattr(command_module, "_run", lambda command, environment: int(status))
    assert command_module.main(["attention", "--list", "--filter", "nosuchcase"]) == status
    assert "no test matches; see --list, --device and --filter" in capsys.readouterr().err


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
