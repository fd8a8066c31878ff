"""A pytest plugin for GPU sessions: a file with one line a finished test, complete even if the run is killed.

`-p benchmarks.gpu.record --record FILE`. Each line is an outcome and a test's id. Tests without a line did not finish:
the line "started" names those that had begun. It also runs the tests named in `parts.LAST` after all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import pytest

from benchmarks.gpu.parts import LAST


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, metavar="FILE", help="write the outcome of each test there")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--record")
    # The processes of pytest-xdist report to the first one.
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record(path))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: any(name in item.name for name in LAST))


class Record:
    """Writes the file. A test is listed as started, then as passed, failed or skipped with its seconds."""

    def __init__(self, path: Path) -> None:
        self.file: IO[str] = path.open("w", encoding="utf-8", buffering=1)
        self.selected: set[str] = set()
        self.finished: set[str] = set()
        self.worst: dict[str, tuple[str, float]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._select(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Iterable[str]) -> None:
        self._select(ids)

    def _select(self, ids: Iterable[str]) -> None:
        new = [test for test in ids if test not in self.selected]
        self.selected.update(new)
        if new:
            self.file.write(f"selected {len(self.selected)}\n")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.file.write(f"started {nodeid}\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome, seconds = self.worst.get(report.nodeid, ("passed", 0.0))
        outcome = report.outcome if outcome == "passed" else outcome
        self.worst[report.nodeid] = (outcome, seconds + report.duration)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        outcome, seconds = self.worst.get(nodeid, ("lost", 0.0))
        self.finished.add(nodeid)
        self.file.write(f"{outcome} {nodeid} {seconds:.2f}\n")

    def pytest_sessionfinish(self) -> None:
        for test in sorted(self.selected - self.finished):
            self.file.write(f"unfinished {test}\n")
        self.file.write(f"finished {len(self.finished)} of {len(self.selected)}\n")
