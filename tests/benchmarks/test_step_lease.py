"""The step's variants in one short run, rehearsed on a CPU."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import step_lease
from tests.helpers.tiny_steps import TINY_RUN


@pytest.fixture(autouse=True)
def _quick_steps(monkeypatch):
    """Each test takes dozens of steps, of whatever model."""
    monkeypatch.setattr(step_lease, "CONFIGS", {"small": TINY_RUN})


def run(tmp_path, *arguments: str) -> tuple[int, dict[str, dict[str, object]]]:
    status = step_lease.main(
        ["--device", "cpu", "--config", "small", "--examples", "1", "--out", str(tmp_path), *arguments]
    )
    return status, json.loads((tmp_path / "step.json").read_text())["variants"]


def test_each_variant_is_timed_compared_and_profiled(tmp_path, capsys):
    status, variants = run(tmp_path, "--only", "ours, three-op GELU", "ours, fused GELU", "padded")
    assert status == 0
    assert len(variants["padded"]["seconds"]) >= step_lease.FEWEST_ROUNDS
    assert variants["padded"]["queued_seconds"] > 0
    assert variants["padded"]["host_seconds"] > 0
    assert variants["ours, fused GELU"]["difference_from_ours"] < 1e-3
    assert variants["padded"]["difference_from_ours"] < 1e-3
    assert "aten::mm" in (tmp_path / "profile-padded.txt").read_text()
    assert capsys.readouterr().out.count("padded, ms: ") == 1


def test_a_variant_that_fails_is_recorded_and_the_next_one_runs(tmp_path, monkeypatch):
    def failing(*_):
        raise ValueError("no such kernel\nand a long trace")

    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(step_lease, "VARIANTS", {"a": failing, "b": full, "c": step_lease.VARIANTS["padded"]})
    status, variants = run(tmp_path)
    assert status == 0
    assert variants["a"] == {"missing": "ValueError: no such kernel"}
    assert variants["b"] == {"missing": "out of memory"}
    assert variants["c"]["seconds"]


def test_an_interrupt_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(step_lease, "VARIANTS", {"a": step_lease.VARIANTS["padded"], "b": interrupted})
    status, variants = run(tmp_path)
    assert status == 0
    assert list(variants) == ["a"]
    assert capsys.readouterr().out.count("differs") == 1


def test_variants_are_skipped_when_time_is_up(tmp_path):
    status, variants = run(tmp_path, "--seconds", "0", "--only", "padded")
    assert status == 1
    assert variants == {"padded": {"missing": "no time left"}}


def test_fewer_examples_are_taken_when_memory_is_short(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    problems = iter(["out of memory", ""])
    monkeypatch.setattr(step_lease, "guarded", lambda _: (None, next(problems)))
    assert step_lease.fitting_bench(step_lease.SMALL, 4, "cpu").examples == 3


@pytest.mark.parametrize("name", ["ours, compiled layers", "ours, compiled and recomputed"])
def test_variants_leave_the_model_as_it_was(name):
    bench = step_lease.Bench(step_lease.SMALL, 1, "cpu")
    with step_lease.ExitStack() as stack:
        step_lease.VARIANTS[name](bench, stack)
        assert any("forward" in vars(module) for module in bench.step.model.modules())
    assert not any("forward" in vars(module) for module in bench.step.model.modules())
    assert not bench.step.model.joint_transformer.recompute
