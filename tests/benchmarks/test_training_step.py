"""Ways to run the step of one model."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from benchmarks.interleaved import Missing
from benchmarks.step_cases import SMALL, Step, random_batch
from benchmarks.training_step import CPU_CASES, CUDA_CASES, WAYS
from reserve.model.transformer import Layer


@pytest.fixture
def step():
    return Step(SMALL, random_batch(SMALL, 1), torch.device("cpu"))


@pytest.mark.parametrize("name", ["reserve", "reserve, not compiled", "SDPA, dense loss", "padded"])
def test_compiled_layers_do_not_reach_ways_without_compilation(step, name):
    counter = CompileCounter()
    for module in step.model.modules():
        if isinstance(module, Layer):
            module.compile(backend=counter, dynamic=True)
    uncompiled = WAYS[name](step).loss_and_gradient()
    assert counter.frame_count == 0
    compiled = step.loss_and_gradient()
    assert counter.frame_count > 0
    for a, b in zip(uncompiled, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_ways_that_cannot_run_say_why(step):
    with pytest.raises(Missing, match="needs"):
        WAYS["varlen attention, dense loss"](step)


def test_the_peers_of_every_case_are_ways():
    assert {peer for case in (CPU_CASES | CUDA_CASES).values() for peer in case.peers} <= WAYS.keys()
