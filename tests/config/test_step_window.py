from __future__ import annotations

import pytest

from reserve.config import TrainConfig
from reserve.config.step_window import step_window


@pytest.mark.parametrize(("text", "steps"), [("", range(0)), ("100:105", range(100, 105)), ("0:100", range(100))])
def test_steps_are_counted_by_those_finished_before(text, steps):
    assert step_window("x", text) == steps


@pytest.mark.parametrize("text", ["5", "5:5", "6:5", "0:101", "-1:3", "a:b", "1:2:3", "1: 2", "\u0661:\u0662", ":"])
def test_other_texts_are_named_with_what_is_allowed(text):
    with pytest.raises(ValueError, match=r"profile_steps must be FROM:TO, such as 100:105, at most 100 steps; got"):
        TrainConfig(profile_steps=text)
