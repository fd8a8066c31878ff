"""What every benchmark shares: the machine in the stored result, `--quick`, the order, and that a GPU is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import interleaved, machine

UNTOLD = ("node", "flags", "python_build")
"""Of pytest-benchmark's description of the machine: who it is rather than what, and long lists."""


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="few rounds: whether it runs, not how fast")


def pytest_configure(config):
    interleaved.quick = config.getoption("--quick")


def pytest_collection_modifyitems(items):
    # The implementations of a case one after another: a run that is interrupted has whole cases, with their peers.
    cases: dict[Any, list[pytest.Item]] = {}
    for item in items:
        # Of other tests that run beside them, some have no parameters.
        parameters = dict(item.callspec.params) if hasattr(item, "callspec") else {"name": item.name}
        parameters.pop("implementation", None)
        cases.setdefault((item.path, getattr(item, "originalname", ""), repr(parameters)), []).append(item)
    items[:] = [item for case in cases.values() for item in case]
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


def pytest_benchmark_update_machine_info(machine_info):
    machine_info.update(machine.describe())
    for name in UNTOLD:
        machine_info.pop(name, None)
        machine_info["cpu"].pop(name, None)


def pytest_benchmark_update_commit_info(commit_info):
    # A machine without the repository's history is told the commit.
    commit_info["id"] = os.environ.get("RESERVE_COMMIT") or commit_info["id"]
    changed = machine.is_changed(Path(__file__).parents[1])
    if changed is not None:
        commit_info["dirty"] = changed


def pytest_benchmark_update_json(output_json):
    # Beside the description of the machine: with it, no two runs would be of the same machine.
    output_json["load_average"] = os.getloadavg()[0]
