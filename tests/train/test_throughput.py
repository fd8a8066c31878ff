"""Speed, utilisation, memory and waiting in the metrics."""

from __future__ import annotations

import pytest
import torch

from reserve.errors import BadInput
from reserve.model.flops import Workload
from reserve.train import throughput
from reserve.train.distributed import Ranks
from reserve.train.throughput import Throughput, bf16_peak

CPU = Ranks(0, 1, torch.device("cpu"))
MEMORY = {"peak_memory_gb", "host_memory_gb", "loader_memory_gb"}


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    return now


def wait(counted: Throughput, clock: list[float], seconds: float) -> None:
    with counted.waiting():
        clock[0] += seconds


def test_rates_are_over_the_time_since_the_last_line(clock):
    counted = Throughput(CPU, torch.float32)
    for _ in range(2):
        wait(counted, clock, 1.0)
        counted.add([Workload(100, 3 * 10**12), Workload(50, 10**12)])
        clock[0] += 3.0
    line = counted.since_last()
    assert {name: line[name] for name in line if name not in MEMORY} == {
        "tokens_per_second": 300 / 8,
        "tflops": 1.0,
        "seconds_waiting": 2.0,
        "share_waiting": 0.25,
        "seconds_saving": 0.0,
        "seconds_evaluating": 0.0,
    }
    wait(counted, clock, 0.5)
    counted.add([Workload(7, 10**12)])
    clock[0] += 0.5
    line = counted.since_last()
    assert (line["tokens_per_second"], line["tflops"], line["share_waiting"]) == (7.0, 1.0, 0.5)


def test_rates_leave_out_evaluations_and_count_checkpoints(clock):
    counted = Throughput(CPU, torch.float32)
    wait(counted, clock, 1.0)
    counted.add([Workload(100, 10**12)])
    with counted.saving():
        clock[0] += 3.0
    with counted.evaluating():
        clock[0] += 60.0
    line = counted.since_last()
    assert (line["tokens_per_second"], line["tflops"], line["share_waiting"]) == (25.0, 0.25, 0.25)
    assert (line["seconds_saving"], line["seconds_evaluating"]) == (3.0, 60.0)
    clock[0] += 1.0
    line = counted.since_last()
    assert (line["seconds_saving"], line["seconds_evaluating"]) == (0.0, 0.0)


def test_waiting_counts_although_loading_fails(clock):
    counted = Throughput(CPU, torch.float32)

    def load() -> None:
        clock[0] += 2.0
        raise BadInput("damaged")

    with pytest.raises(BadInput), counted.waiting():
        load()
    clock[0] += 2.0
    assert counted.since_last()["seconds_waiting"] == 2.0


def test_work_that_is_not_known_is_left_out(clock):
    counted = Throughput(CPU, torch.bfloat16)
    counted.add([None, Workload(1, 1)])
    clock[0] += 1.0
    assert not {"tokens_per_second", "tflops", "mfu"} & counted.since_last().keys()


def test_several_ranks_give_totals_and_means(clock, monkeypatch):
    """As if another rank had twice the work and did not wait."""
    monkeypatch.setattr(Ranks, "sum", lambda self, values: [values[0], *(3 * value for value in values[1:])])
    counted = Throughput(Ranks(0, 2, torch.device("cpu")), torch.bfloat16)
    wait(counted, clock, 1.0)
    counted.add([Workload(10, 2 * 10**12)])
    clock[0] += 1.0
    line = counted.since_last()
    assert (line["tokens_per_second"], line["tflops"]) == (15.0, 1.5)
    assert (line["seconds_waiting"], line["share_waiting"]) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", None),
        ("NVIDIA H20", None),
        ("NVIDIA L40", None),
    ],
)
def test_a_peak_is_known_by_the_whole_name(name, peak):
    assert bf16_peak(name) == peak


@pytest.mark.parametrize(("dtype", "mfu"), [(torch.bfloat16, 0.5), (torch.float32, None)])
def test_mfu_is_the_share_of_the_bfloat16_peak(clock, monkeypatch, dtype, mfu):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(throughput, "memory_figures", lambda device: {})
    counted = Throughput(Ranks(0, 1, torch.device("cuda")), dtype)
    counted.add([Workload(1, 312 * 10**12)])
    clock[0] += 2.0
    line = counted.since_last()
    assert line.get("mfu") == mfu
