"""Shared by all benchmarks: options, the order of tests, skipping without a GPU, and the machine's description."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import interleaved, machine

OMITTED = ("node", "flags", "python_build")
"""Fields of pytest-benchmark's machine description that identify the machine, or are long lists."""


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="a few rounds, to see whether it runs")
    parser.addoption("--peers", type=re.compile, metavar="REGEX", help="run only ours and the peers that match")


def pytest_configure(config):
    interleaved.quick = config.getoption("--quick")
    peers = config.getoption("--peers")
    interleaved.only = peers.search if peers else None


@pytest.fixture(autouse=True)
def _figures_as_they_come(request):
    """Prints the time of each implementation when it is known: pytest-benchmark stores its results at the very end."""
    yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    result = getattr(request.node, "funcargs", {}).get("benchmark")
    if result is None or not result.extra_info.get("ours_is_faster_by"):
        return
    info = result.extra_info
    figures = [f"{result.stats.stats.median * 1e6:.1f} us", f"{info['ours_is_faster_by']:.2f} of ours"]
    figures += [f"{info['fraction_of_limit']:.2f} of the limit"] if "fraction_of_limit" in info else []
    figures += [f"{info['peak_extra_bytes'] / 1e6:.0f} MB"] if "peak_extra_bytes" in info else []
    with capture.global_and_fixture_disabled():
        print(f"\n{result.group}: {info['implementation']} {', '.join(figures)}", flush=True)


def _implementation(item):
    """The implementation that a test reports; ours for a test of another kind."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters.get("implementation", interleaved.OURS)


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if interleaved.selected(_implementation(item))]
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
