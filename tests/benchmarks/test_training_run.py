"""The short training on random examples that a GPU machine runs, on the CPU."""

from __future__ import annotations

import json

from benchmarks import training_run


def test_it_learns_and_says_how_fast(tmp_path):
    options = ["--config", "small", "--minutes", "0.12", "--batch_size", "2", "--batches", "1", "--workers", "0"]
    status = training_run.main([*options, "--learning_rate", "1e-3", "--device", "cpu", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "training.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert result["steps"] == len(lines) >= 4
    assert result["all_finite"]
    assert status == int(result["loss_last"] >= result["loss_first"])
    assert 0 < result["fraction_of_matmul_rate"] < 2
    assert result["examples_per_s"] > 0
