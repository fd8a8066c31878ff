"""The short training on random examples that a GPU machine runs, on the CPU."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import pytest

from benchmarks import training_run


def test_it_trains_and_reports_its_speed(tmp_path, monkeypatch):
    """The clock moves on by a second at each look, so that the number of steps does not depend on the machine."""
    clock = itertools.count()
    monkeypatch.setattr(training_run, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    # Four looks a step: before it, at its batch, at its end, and at the limit.
    options = ["--config", "small", "--minutes", str(4 * 10 / 60), "--batch_size", "2", "--batches", "1"]
    options += ["--workers", "0", "--learning_rate", "1e-3", "--device", "cpu", "--out", str(tmp_path)]
    status = training_run.main(options)
    result = json.loads((tmp_path / "training.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert result["steps"] == len(lines) == 10
    assert result["all_finite"]
    assert status == int(result["loss_last"] >= result["loss_first"])
    assert result["seconds_a_step"] == 2
    assert result["waited_for_batches"] == pytest.approx(1 / 2)
    assert result["examples_per_s"] == pytest.approx(1)
    assert result["fraction_of_matmul_rate"] > 0
