"""`python -m benchmarks.gpu`: the order of parts, their time, the summary."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks.gpu import __main__ as command_module
from benchmarks.gpu.parts import ROOT, SHORT, Command, Part, Session


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def parts(monkeypatch):
    """Replaces the parts by those that run some Python code; adds to them by calling it. There is a GPU."""
    table: dict[str, Part] = {}
    monkeypatch.setattr(command_module, "gpu", lambda: "A GPU")
    monkeypatch.setattr(command_module, "PARTS", table)

    def add(**codes: str) -> None:
        for name, code in codes.items():
            table[name] = Part("", 60, lambda _, name=name, code=code: [Command(name, python(code))])

    return add


def summary(folder) -> list[tuple[str, str]]:
    content = json.loads((folder / "summary.json").read_text())
    assert content["gpu"] == "A GPU"
    return [(entry["part"], entry["status"]) for entry in content["parts"]]


def test_parts_go_on_after_a_failure(tmp_path, parts, capsys):
    parts(build="raise SystemExit(3)", tests="print('42 passed')")
    assert command_module.main(["build", "tests", "--out", str(tmp_path)]) == 1
    assert summary(tmp_path) == [("build", "failed with status 3"), ("tests", "ok")]
    assert "42 passed" in capsys.readouterr().out


def test_separate_runs_share_a_summary(tmp_path, parts):
    for name, code in (("tests", "print('old')"), ("build", ""), ("tests", "print('new')")):
        parts(**{name: code})
        assert command_module.main([name, "--out", str(tmp_path)]) == 0
    assert summary(tmp_path) == [("tests", "ok"), ("build", "ok")]
    assert (tmp_path / "tests.log").read_text() == "new\n"


def test_the_summary_is_written_after_each_part(tmp_path, parts, monkeypatch):
    def interrupted(name, *_):
        if name == "tests":
            raise KeyboardInterrupt
        return [{"part": name, "status": "ok"}]

    parts(build="", tests="")
    monkeypatch.setattr(command_module, "run_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command_module.main(["build", "tests", "--out", str(tmp_path)])
    assert summary(tmp_path) == [("build", "ok")]


def test_parts_find_this_checkouts_ops_and_share_their_caches(tmp_path, parts):
    show = "import importlib.util, os; print(importlib.util.find_spec('reserve_kernels').origin, "
    show += "os.environ['TRITON_CACHE_DIR'], os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    parts(one=show, two=show)
    assert command_module.main(["one", "two", "--out", str(tmp_path)]) == 0
    found = (tmp_path / "one.log").read_text()
    assert found.startswith(f"{ROOT / 'build' / 'gpu' / 'reserve_kernels' / '__init__.py'} ")
    assert (tmp_path / "two.log").read_text() == found


def seconds_of(names, total, monkeypatch, taken: float) -> dict[str, float]:
    """The limit of each part that runs, if each takes the fraction `taken` of it."""
    now, limits = [1000.0], {}

    def run_part(name, commands, seconds, out):
        limits[name] = seconds
        now[0] += taken * seconds
        return []

    monkeypatch.setattr(command_module, "run_part", run_part)
    monkeypatch.setattr(command_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(command_module, "entry", lambda name, status: {"part": name, "status": status})
    skipped = list(command_module.run_parts(names, Session(command_module.ROOT, True), 1000 + total))
    assert now[0] <= 1000 + total
    assert [name for name in names if name not in limits] == [entry["part"] for entry in skipped]
    return limits


@pytest.mark.parametrize("total", [100.0, 300.0, 480.0])
def test_the_total_time_is_kept_also_if_all_run_into_their_limits(total, monkeypatch):
    limits = seconds_of(SHORT, total, monkeypatch, taken=1.0)
    assert list(limits)[:2] == ["library", "facts"]
    for name, seconds in limits.items():
        assert command_module.PARTS[name].seconds / 2 <= seconds <= command_module.PARTS[name].seconds


def test_parts_that_end_early_leave_time_for_all(monkeypatch):
    limits = seconds_of(SHORT, 480.0, monkeypatch, taken=0.8)
    assert limits == {name: command_module.PARTS[name].seconds for name in SHORT}


def test_a_part_that_does_not_fit_is_named(parts):
    parts(long="print('ran')")
    (entry,) = command_module.run_parts(["long"], Session(command_module.ROOT, True), 0.0)
    assert entry["status"] == "skipped: it needs 30 s, 0 s are left"


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        command_module.main(["fly"])
    assert "no part 'fly'; choose from library, facts, tests" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu_is_said(capfd):
    assert command_module.main([]) == 1
    printed = capfd.readouterr().err
    assert "no CUDA device" in printed
    assert f"'torch': '{torch.__version__.partition('+')[0]}" in printed


def test_the_summary_names_the_commit(tmp_path, monkeypatch):
    summary = tmp_path / "summary.json"
    monkeypatch.setenv("RESERVE_COMMIT", "abc")
    command_module.keep({"part": "facts"}, "a card", summary)
    assert json.loads(summary.read_text())["commit"] == "abc"
    monkeypatch.delenv("RESERVE_COMMIT")
    monkeypatch.setattr(command_module.shutil, "which", lambda name: None)
    command_module.keep({"part": "facts"}, "a card", summary)
    assert json.loads(summary.read_text())["commit"] is None
