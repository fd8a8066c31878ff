from __future__ import annotations

from dataclasses import replace

from benchmarks.learning import step_times as timing
from benchmarks.learning.arms import ARMS
from benchmarks.learning.objectives import configuration
from tests.helpers.small_stores import DATA, MODEL


def test_each_arm_has_the_time_of_a_step_and_of_its_loading(prepared, monkeypatch):
    monkeypatch.setattr(timing, "ROUNDS", 2)
    config = configuration(4)
    config = replace(config, data=DATA, model=MODEL, train=replace(config.train, batch_size=2))
    found = timing.step_times(config, prepared)
    assert list(found) == list(ARMS)
    assert all(times["step"] > 0 and times["loading"] > 0 for times in found.values())
