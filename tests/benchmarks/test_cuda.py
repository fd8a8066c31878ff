"""The parts of GPU timing that need no GPU."""

from __future__ import annotations

import pytest
import torch

from benchmarks.cuda import card, host_waits


@pytest.fixture
def modes(monkeypatch):
    """The sync debug modes that were set."""
    found: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", found.append)
    return found


def raises(message: str):
    def call():
        raise RuntimeError(message)

    return call


@pytest.mark.parametrize(
    ("call", "expected"), [(lambda: 1, False), (raises("called a synchronizing CUDA operation"), True)]
)
def test_a_call_that_makes_the_host_wait_is_detected(call, expected, modes):
    assert host_waits(call) is expected
    assert modes == ["error", "default"]


def test_another_error_is_raised_and_the_mode_put_back(modes):
    with pytest.raises(RuntimeError, match="illegal"):
        host_waits(raises("illegal memory access"))
    assert modes == ["error", "default"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
    ],
)
def test_cards_are_told_apart_by_a_short_name(name, label):
    assert card(name) == label
