"""The sizes that the model of scaling starts from are those of the models and of their examples."""

from __future__ import annotations

import json

import pytest

from benchmarks.scaling.counts import BASE, EXAMPLES, LARGE, PROBLEMS, ROWS, count
from benchmarks.scaling.machines import STEP
from benchmarks.step_cases import BASE as BASE_CONFIG
from benchmarks.step_cases import LARGE as LARGE_CONFIG
from benchmarks.step_cases import random_batch


@pytest.mark.parametrize(("sizes", "config"), [(BASE, BASE_CONFIG), (LARGE, LARGE_CONFIG)], ids=["base", "large"])
def test_the_stored_sizes_are_those_that_are_counted(sizes, config):
    assert count(sizes.name, config, EXAMPLES) == sizes


def test_the_problems_have_the_rows_of_a_batch():
    targets = random_batch(BASE_CONFIG, 2).targets
    sides = [
        (len(targets.pool_rows), 0),
        (len(targets.audio_index), len(targets.audio_extra)),
        (len(targets.span_index), 0),
    ]
    assert [(2 * problem.pairs, 2 * problem.extras) for problem in PROBLEMS] == sides
    assert len(targets.audio_rows) == len(targets.audio_index)
    assert ROWS == 188


def test_logits_are_counted_once_for_both_directions_of_own_pairs_only():
    text_to_audio = PROBLEMS[1]
    assert text_to_audio.own == 12 * 48
    assert text_to_audio.others == 12 * 48 + 12 * 12


def test_the_flops_are_those_of_the_measured_step():
    facts = json.loads(STEP.read_text("utf-8"))["facts"]
    logits = 6 * BASE.hidden_size * sum(p.own for p in PROBLEMS) * facts["examples"] ** 2
    assert facts["examples"] * BASE.flops + logits == pytest.approx(facts["flops"], rel=1e-4)
