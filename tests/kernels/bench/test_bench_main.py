from __future__ import annotations

import json

import pytest
import torch
import torch._inductor.config

from reserve_kernels.bench import __main__ as bench
from reserve_kernels.bench.case import Case, run
from reserve_kernels.bench.interleaved import OURS, Contender, Missing
from reserve_kernels.registry import OPS


def test_every_op_has_a_benchmark():
    assert {op.name for op in OPS} <= bench.BENCHMARKS.keys()


def test_every_case_has_ours_and_a_peer(capsys):
    assert bench.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split(":")[0] for line in lines} == bench.BENCHMARKS.keys()
    for line in lines:
        implementations = line.rsplit(": ", 1)[1].split(", ")
        assert implementations[0] == OURS, line
        assert len(implementations) > 1, line


def test_a_run_prints_and_stores_its_table(tmp_path, capsys):
    arguments = ["bias_quick_gelu", "--quick", "--threads", "1", "--cases", "512", "--peers", "^PyTorch$"]
    assert bench.main([*arguments, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    stored = json.loads((tmp_path / "bias_quick_gelu-cpu.json").read_text("utf-8"))
    assert [row["implementation"] for row in stored["rows"]] == [OURS, "PyTorch"]
    assert all(row["seconds"] > 0 and row["rounds"] == bench.QUICK_ROUNDS for row in stored["rows"])
    assert stored["rows"][0]["ours_is_faster_by"] == 1.0
    assert stored["machine"]["versions"]["torch"] == torch.__version__
    assert "512 x 3072  1        reserve" in out
    assert str(tmp_path) in out


def difference(a: float, b: float) -> float:
    return abs(a - b)


def made_of(**builders):
    return lambda device: [Case("group", "name", builders, difference, 0.1)]


def contender(result: float) -> Contender:
    return Contender(lambda: None, lambda: result)


def missing() -> Contender:
    raise Missing("no such library")


@pytest.mark.parametrize(
    ("builders", "status", "shown"),
    [
        ({OURS: lambda: contender(1.0), "peer": missing}, 0, "no such library"),
        ({OURS: lambda: contender(1.0), "peer": lambda: contender(2.0)}, 1, "its result differs from ours by 1"),
    ],
    ids=["missing", "another result"],
)
def test_what_a_peer_lacks_is_in_the_table(monkeypatch, tmp_path, capsys, builders, status, shown):
    module = type("module", (), {"cases": staticmethod(made_of(**builders)), "__doc__": "A case."})
    monkeypatch.setattr(bench, "_module", lambda name: module)
    assert bench.main(["rotary_attention", "--threads", "1", "--rounds", "2", "--out", str(tmp_path)]) == status
    assert shown in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "rotary_attention-cpu.json").read_text("utf-8"))["rows"][1:]
    assert shown in row["wrong" if status else "missing"]


def test_a_machine_without_a_compiler_has_no_compiled_peer(tmp_path):
    arguments = ["bias_quick_gelu", "--quick", "--threads", "1", "--cases", "512", "--peers", "compiled"]
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert bench.main([*arguments, "--out", str(tmp_path)]) == 0
    (_, row) = json.loads((tmp_path / "bias_quick_gelu-cpu.json").read_text("utf-8"))["rows"]
    assert row["missing"].startswith("torch.compile finds no C++ compiler: ")


def test_ours_missing_is_said_and_the_rest_runs(monkeypatch, tmp_path, capsys):
    module = type("module", (), {"cases": staticmethod(made_of(**{OURS: missing})), "__doc__": "A case."})
    monkeypatch.setattr(bench, "_module", lambda name: module)
    assert bench.main(["rotary_attention", "--threads", "1", "--out", str(tmp_path)]) == 0
    assert "ours cannot run: no such library" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fft"], "no benchmark 'fft'; choose from rotary_attention"),
        (["--rounds", "0"], "--rounds and --threads must be at least 1"),
        (["--threads", "0"], "--rounds and --threads must be at least 1"),
        (["--cases", "("], "argument --cases: '(' is no regular expression"),
    ],
)
def test_wrong_arguments_are_errors(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--device", "cuda"])
    assert "PyTorch sees no CUDA device" in capsys.readouterr().err


def test_no_matching_case_is_said(capsys):
    assert bench.main(["--cases", "no such case", "--list"]) == 2
    assert "no case matches" in capsys.readouterr().err


def test_a_gpu_is_timed_by_events(monkeypatch):
    """The host's clock would time the launch alone."""
    used = []
    monkeypatch.setattr("reserve_kernels.bench.case.EventClock", lambda: used.append("events") or (lambda call: 1.0))
    case = Case("group", "name", {OURS: lambda: contender(1.0)}, difference, 0.1)
    assert run(case, rounds=2, threads=1, device=torch.device("cuda")).seconds == {OURS: [1.0, 1.0]}
    assert used == ["events"]
    assert run(case, rounds=2, threads=1, device=torch.device("cpu")).seconds[OURS][0] < 1
    assert used == ["events"]
