"""The rows of the benchmark of contrastive_loss that time constants of its launcher."""

from __future__ import annotations

import pytest
import torch

from benchmarks.contrastive_peers import VARIANTS, Step, ours, ours_by, variant

launcher = pytest.importorskip("reserve_kernels.contrastive.triton", exc_type=ImportError)


@pytest.mark.parametrize("name", [name for name, (backend, _) in VARIANTS.items() if backend == "dense"])
def test_a_variant_holds_for_both_passes_and_no_longer(name):
    constants = VARIANTS[name][1]
    before = {constant: getattr(launcher, constant) for constant in constants}
    assert before != constants
    step = Step(variant(name), (8, 8, 16), torch.float32, "cpu")
    loss = step.loss(*step.leaves)
    seen = []
    step.leaves[0].register_hook(lambda _: seen.append({c: getattr(launcher, c) for c in constants}))
    assert {c: getattr(launcher, c) for c in constants} == constants
    loss.backward()
    assert seen == [constants]
    assert {c: getattr(launcher, c) for c in constants} == before


@pytest.mark.parametrize("loss", [ours_by("dense"), ours_by("chunked")])
def test_back_ends_by_name_give_the_same_step(loss):
    steps = [Step(each, (12, 20, 16), torch.float32, "cpu").result() for each in (loss, ours)]
    for found, expected in zip(*steps, strict=True):
        torch.testing.assert_close(found, expected)
