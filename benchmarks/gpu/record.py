"""A pytest plugin for GPU sessions: writes the outcome of each test when it is known, so that a killed run keeps them.

`-p benchmarks.gpu.record --record FILE`. A test that has started and has no outcome was running when the run ended. The
plugin also moves the tests that `parts.LAST` names behind all others.
"""

from __future__ import annotations

import textwrap
from collections import Counter
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
    """Writes the file: all selected tests, a line when a test starts, and one with its outcome and seconds."""

    def __init__(self, path: Path) -> None:
        self.file: IO[str] = path.open("w", encoding="utf-8", buffering=1)
        self.selected: set[str] = set()
        self.outcomes: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._select(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Iterable[str]) -> None:
        self._select(ids)

    def _select(self, ids: Iterable[str]) -> None:
        new = [test for test in ids if test not in self.selected]
        self.selected.update(new)
        self.file.writelines(f"selected {test}\n" for test in new)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.file.write(f"started {nodeid}\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid
        self.seconds[test] = self.seconds.get(test, 0.0) + report.duration
        if report.skipped:
            self.outcomes[test] = "skipped"
        if report.failed:
            # Now rather than when it ends: a test whose process crashes does not end.
            self.outcomes[test] = "failed"
            self.file.write(f"failed {test} {self.seconds[test]:.2f}\n{textwrap.indent(report.longreprtext, '    ')}\n")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if self.outcomes.setdefault(nodeid, "passed") != "failed":
            self.file.write(f"{self.outcomes[nodeid]} {nodeid} {self.seconds.get(nodeid, 0.0):.2f}\n")

    def pytest_sessionfinish(self) -> None:
        counts = Counter(self.outcomes.values())
        self.file.write(f"of {len(self.selected)} tests: {', '.join(f'{n} {name}' for name, n in counts.items())}\n")
