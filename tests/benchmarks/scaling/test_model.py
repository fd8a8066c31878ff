"""The model of scaling: cases worked out by hand, limits, and what must grow or fall."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import pytest

from benchmarks.report.steps import SHIPPED
from benchmarks.scaling.counts import BASE, LARGE, Sizes
from benchmarks.scaling.machines import FAST, SLOW, STEP, Device, Network, measured_h100
from benchmarks.scaling.model import Job, Setting, activation_bytes, best, loss_flops, settings, state_bytes, step

H100 = measured_h100()
CASES = [(sizes, batch, network) for sizes in (BASE, LARGE) for batch in (1024, 32768) for network in (FAST, SLOW)]

SIZES = Sizes(
    name="toy",
    parameters=13_107_200,  # in float32 two buckets of DDP
    layers=2,
    layer_matrices=2_000_000,
    hidden_size=100,
    flops=3_000_000_000,
    tokens=10,
    token_layers=20,
    widest_tokens=5,
    image_bytes=1,
    sound_bytes=1,
)
DEVICE = Device(
    name="toy",
    memory=1e12,
    flops_per_s=1e9,
    host_seconds=0.3,
    host_layers=1,
    activation_bytes=10.0,
    parameters_per_s=13_107_200,
)
NETWORK = Network(
    "toy",
    node_rate=100e6,
    gpu_rate=200e6,
    gpus_per_node=2,
    efficiency=0.5,
    hop_seconds=0.01,
    node_hop_seconds=0.1,
    launch_seconds=1.0,
)


def test_a_step_by_hand():
    """Two nodes of two GPUs with two examples each, DDP."""
    found = step(Job(SIZES, 8, 4, DEVICE, NETWORK), Setting())
    # Forward 2 s and backward 4 s; the host would take 0.2 s and 0.4 s for two layers.
    assert (found.passes, found.host) == (pytest.approx(6.0), pytest.approx(0.0))
    # Logits, 4 products of 2 FLOPs x 100: own 2 x 2 examples, and 2 x 6 with those of others.
    own = 800 * 4 * (16 * 16 + 12 * 48 + 48 * 48)
    others = 800 * 12 * (2 * 16 * 16 + 12 * 48 + 12 * 12 + 2 * 48 * 48)
    assert loss_flops(found.job) == (own, others)
    assert found.loss == pytest.approx((own + others) / 1e9)
    assert found.optimizer == 1.0
    # A bucket: start, hops of a tree inside a node and between two, and bytes at half of 100 MB/s.
    bucket = 1.0 + 2 * (0.01 + 0.1) + 2 * 3 / 4 * 26_214_400 / 50e6
    assert found.weights == pytest.approx(bucket)  # the other one is hidden by the backward pass
    # Six sides forward and backward, 188 rows of 100 in bfloat16 for each of 8 examples; three exchanges of counts.
    hops = 1.0 + 2 * 0.01 + 0.1
    gathers = 12 * hops + 2 * 3 / 4 * 188 * 8 * 200 / 50e6
    assert found.candidates == pytest.approx(3 * hops + gathers - own / 1e9)
    assert found.hidden == pytest.approx(bucket + own / 1e9)
    assert found.seconds == pytest.approx(7.0 + (own + others) / 1e9 + found.weights + found.candidates)
    # Weights, gradients and moments; activations of two examples; vectors.
    assert found.states == 12 * 13_107_200
    assert found.activations == 10 * 20 * 2 * 100
    vectors = (2 * 188 * 2 + 188 * 6 + 2 * 48 * 8) * 200
    assert found.memory == found.states + found.activations + vectors
    assert found.rate == pytest.approx(8 / found.seconds)


def test_fsdp_by_hand():
    """One node of two GPUs: what is gathered and reduced, in which dtype, and what hides it."""
    job = Job(SIZES, 4, 2, DEVICE, NETWORK)
    hops, rate = 1.0 + 0.01, 2 * 100e6  # half of each is another GPU's: bytes / 2 / 100 MB/s
    gather, reduce = hops + 2 * 1_000_000 / rate, hops + 4 * 1_000_000 / rate
    other = hops + 4 * (13_107_200 - 2_000_000) / rate
    first, last = other + gather, other + reduce
    found = step(job, Setting("fsdp"))
    assert found.weights == pytest.approx(first + last)
    assert found.hidden == pytest.approx(gather + 2 * gather + reduce + found.loss * _own_share(job))
    # With nothing to hide them, all of them are exposed: two gathers and one reduction for each layer.
    fast = replace(job, device=replace(DEVICE, flops_per_s=1e30, host_seconds=0.0))
    assert step(fast, Setting("fsdp")).weights == pytest.approx(first + last + gather + 2 * gather + reduce)
    assert state_bytes(job, "fsdp") == 12 * 13_107_200 / 2 + 2 * 1_000_000 * 6 + 8 * (13_107_200 - 2_000_000)


def _own_share(job: Job) -> float:
    own, others = loss_flops(job)
    return own / (own + others)


def test_it_gives_the_measured_step_back():
    record = json.loads(STEP.read_text("utf-8"))
    variant = record["variants"][SHIPPED]
    found = step(Job(BASE, 16, 1, H100, FAST), Setting())
    assert found.seconds == pytest.approx(statistics.median(variant["seconds"]), rel=0.01)
    assert found.memory == pytest.approx(variant["peak_bytes"], rel=0.01)
    kernels = found.passes + found.loss + found.optimizer
    assert kernels == pytest.approx(sum(variant["kinds_ms"].values()) / 1e3, rel=0.01)


def test_one_gpu_does_not_communicate():
    found = step(Job(LARGE, 8, 1, H100, FAST), Setting())
    assert (found.weights, found.candidates, found.hidden) == (0.0, 0.0, 0.0)
    assert found.states == 12 * LARGE.parameters


def test_the_host_sets_the_time_of_few_examples():
    few, fewer = (step(Job(BASE, 8 * examples, 8, H100, FAST), Setting()) for examples in (4, 2))
    assert few.host > 0
    assert few.passes + few.host == pytest.approx(fewer.passes + fewer.host)
    many = step(Job(BASE, 8 * 64, 8, H100, FAST), Setting())
    assert many.host == 0
    assert many.passes == pytest.approx(16 * few.passes)


@pytest.mark.parametrize(("setting", "share"), [(Setting(recompute=True), 4 / 3), (Setting(micro_batches=4), 4 / 3)])
def test_recomputation_and_gradcache_cost_a_forward_pass_and_save_memory(setting, share):
    job = Job(BASE, 8 * 128, 8, replace(H100, host_seconds=0.0), FAST)
    plain, found = step(job, Setting()), step(job, setting)
    assert found.passes == pytest.approx(share * plain.passes)
    assert found.activations < plain.activations / 2
    assert found.memory < plain.memory


def test_with_micro_batches_the_loss_and_the_activations_take_turns():
    job = Job(BASE, 32768, 512, H100, FAST)
    found = step(job, Setting(micro_batches=4))
    assert found.memory == found.states + found.activations + found.cached
    assert found.cached == 2 * 188 * 64 * 2 * 768, "GradCache keeps a GPU's vectors and their gradients"
    large = step(replace(job, batch=2**20), Setting(micro_batches=2**10))
    assert large.memory == large.states + large.vectors
    assert activation_bytes(job, Setting(micro_batches=4)) == pytest.approx(activation_bytes(job, Setting()) / 4)


def test_gradcache_gathers_what_is_outside_layers_once_a_backward_pass():
    """Each micro-batch more is two gathers of all layers, and one of the rest."""
    job = Job(BASE, 8 * 16, 8, H100, FAST)
    one, two, four = (step(job, Setting("fsdp", micro_batches=count)) for count in (1, 2, 4))
    spent = [found.exposed + found.hidden for found in (one, two, four)]
    layers = BASE.layers * FAST.ring_seconds(8, 2 * BASE.layer_matrices / BASE.layers)
    assert 2 * (spent[1] - spent[0]) - (spent[2] - spent[1]) == pytest.approx(2 * layers)


@pytest.mark.parametrize(("sizes", "batch", "network"), CASES)
def test_memory_falls_as_more_gpus_share_parameters(sizes, batch, network):
    jobs = [Job(sizes, batch, gpus, H100, network) for gpus in (8, 16, 64, 512)]
    sharded = [state_bytes(job, "fsdp") for job in jobs]
    assert sharded == sorted(sharded, reverse=True)
    assert len(set(sharded)) == len(jobs)
    assert len({state_bytes(job, "hybrid") for job in jobs}) == 1
    assert all(state_bytes(job, "fsdp") < state_bytes(job, "ddp") for job in jobs)


@pytest.mark.parametrize(("sizes", "batch", "network"), CASES)
def test_no_setting_gains_from_more_gpus_than_there_are(sizes, batch, network):
    """At most all of a step is useful, and with the same setting a GPU does less the more there are."""
    for setting in settings(Job(sizes, batch, 512, H100, network)):
        found = [step(Job(sizes, batch, gpus, H100, network), setting) for gpus in (16, 64, 512)]
        assert all(0 < one.use <= 1 for one in found)
        rates = [one.rate / one.job.gpus for one in found]
        assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("parallel", ["ddp", "hybrid", "fsdp"])
def test_faster_passes_hide_less_of_the_same_communication(parallel):
    job = Job(LARGE, 1024, 64, H100, SLOW)
    fast = replace(job, device=replace(H100, flops_per_s=100 * H100.flops_per_s, host_seconds=0.0))
    slow, faster = (step(one, Setting(parallel)) for one in (job, fast))
    assert faster.exposed > slow.exposed
    assert faster.exposed + faster.hidden == pytest.approx(slow.exposed + slow.hidden)


def test_a_copy_for_each_node_is_a_copy_for_all_gpus_of_one_node():
    job = Job(BASE, 128, 8, H100, FAST)
    hybrid, fsdp = (step(job, Setting(parallel)) for parallel in ("hybrid", "fsdp"))
    assert (hybrid.seconds, hybrid.memory) == (fsdp.seconds, fsdp.memory)


def test_the_best_setting_fits_and_is_the_simplest_of_the_fast():
    job = Job(BASE, 1024, 64, H100, FAST)
    assert best(job).setting == Setting()
    assert best(Job(BASE, 1024, 8, H100, FAST)).fits
    tight = replace(H100, memory=12e9)
    assert best(replace(job, device=tight)).setting.parallel == "ddp"
    # Where a copy of the parameters does not fit, it is shared.
    assert best(Job(LARGE, 1024, 64, tight, FAST)).setting.parallel in ("hybrid", "fsdp")
    assert best(Job(LARGE, 1024, 64, replace(H100, memory=1e9), FAST)) is None


def test_without_the_vectors_memory_a_setting_fits_that_did_not():
    job = Job(BASE, 32768, 512, replace(H100, memory=40e9), FAST)
    assert not step(job, Setting(recompute=True)).fits
    assert best(job).setting != Setting(recompute=True)
    assert best(job, vectors=False).setting == Setting(recompute=True)


def test_impossible_jobs_and_settings_are_named():
    with pytest.raises(ValueError, match="gpus must divide the batch, 1024; got 6"):
        Job(BASE, 1024, 6, H100, FAST)
    with pytest.raises(ValueError, match="micro_batches must divide a GPU's 16 examples; got 3"):
        step(Job(BASE, 1024, 64, H100, FAST), Setting(micro_batches=3))
