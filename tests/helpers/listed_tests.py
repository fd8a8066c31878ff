"""Which tests commands would run, all found in one process: each start of pytest imports torch again."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.gpu.parts import ROOT


def listed_tests(commands: list[list[str]]) -> list[list[str]]:
    """The ids of the tests that each command lists.

    A command is `python -m pytest ... --collect-only -q` or `python -m benchmarks ... --list`.
    """
    process = [sys.executable, "-m", "tests.helpers.listed_tests"]
    done = subprocess.run(process, cwd=ROOT, input=json.dumps(commands), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _listed(command: list[str]) -> list[str]:
    module, arguments = command[2], command[3:]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        status = {"pytest": pytest.main, "benchmarks": benchmarks.main}[module](arguments)
    if status:
        raise RuntimeError(f"{command} ended with status {status}: {output.getvalue()}")
    return [line for line in output.getvalue().splitlines() if "::" in line]


if __name__ == "__main__":
    benchmarks._run = lambda command, environment: pytest.main(command[3:])
    json.dump([_listed(command) for command in json.load(sys.stdin)], sys.stdout)
