"""The reference's recorded numbers (../shared/golden) against ours. Bounds are those the project promises."""

from __future__ import annotations

import measures
import pytest
from golden import Golden


@pytest.fixture(scope="module")
def golden(shared_dir) -> Golden:
    return Golden(shared_dir / "golden")


def assert_holds(figures: list[measures.Figure]) -> None:
    assert figures
    broken = [f"{f.what}: {f.measure} {f.value:.3g}, bound {f.bound:.3g}" for f in figures if not f.holds]
    assert not broken, "\n".join(broken)


def test_checkpoint_is_written_back_byte_for_byte(golden):
    assert_holds(measures.checkpoint(golden))


def test_forward(golden):
    assert_holds(measures.forward(golden))


def test_contrast_vectors_and_losses(golden):
    assert_holds(measures.contrast(golden))


def test_gradient_of_every_parameter(golden):
    figures = measures.gradients(golden)
    assert len(figures) == 129
    assert_holds(figures)


@pytest.mark.parametrize("setting", ["bf16_adam", "fp32_adam"])
def test_three_optimizer_steps(golden, setting):
    assert_holds(measures.optimizer(golden, setting))


def test_schedules(golden):
    assert_holds(measures.schedules(golden))


def test_log_mel(golden):
    assert_holds(measures.log_mel(golden))


def test_two_devices(golden, tmp_path):
    assert_holds(measures.two_devices(golden, tmp_path / "rendezvous"))
