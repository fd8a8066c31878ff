"""Shared by all benchmarks: `--quick`, the order of tests, skipping without a GPU, and the machine's description."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import interleaved, machine

OMITTED = ("node", "flags", "python_build")
"""Fields of pytest-benchmark's machine description that identify the machine, or are long lists."""


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="a few rounds, to see whether it runs")


def pytest_configure(config):
    interleaved.quick = config.getoption("--quick")


def pytest_collection_modifyitems(items):
    # The implementations of a case run one after another: an interrupted run then stores whole cases, peers included.
    cases: dict[Any, list[pytest.Item]] = {}
    for item in items:
        # Tests of other folders in the same run may have no parameters.
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
    for name in OMITTED:
        machine_info.pop(name, None)
        machine_info["cpu"].pop(name, None)


def pytest_benchmark_update_commit_info(commit_info):
    # RESERVE_COMMIT names the commit on a machine without the repository's history.
    commit_info["id"] = os.environ.get("RESERVE_COMMIT") or commit_info["id"]
    changed = machine.is_changed(Path(__file__).parents[1])
    if changed is not None:
        commit_info["dirty"] = changed


def pytest_benchmark_update_json(output_json):
    # Not in the machine's description, by which pytest-benchmark recognises runs of the same machine.
    output_json["load_average"] = os.getloadavg()[0]
