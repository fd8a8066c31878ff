"""Memory in the metrics: now and at most, of a GPU, of the process and of the processes that load its data."""

from __future__ import annotations

import multiprocessing
import os

import pytest
import torch

from reserve.train import memory
from reserve.train.memory import memory_figures, peak_memory_gb, resident_bytes

needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system has no /proc")


def _wait(event) -> None:
    event.wait()


def test_the_peak_is_in_gigabytes():
    held = torch.ones(2**26)
    everything = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert held.nbytes / 1e9 < peak_memory_gb(torch.device("cpu")) < everything / 1e9


@needs_proc
def test_what_the_process_holds_now_is_in_gigabytes():
    held = torch.ones(2**26)
    figures = memory_figures(torch.device("cpu"))
    assert figures.keys() == {"peak_memory_gb", "host_memory_gb"}
    assert held.nbytes / 1e9 < figures["host_memory_gb"] <= figures["peak_memory_gb"] * 1.01


@needs_proc
@pytest.mark.parametrize("daemon", [True, False])
def test_loading_processes_are_counted_and_others_are_not(daemon):
    """A loader's processes are daemons."""
    context = multiprocessing.get_context("fork")
    event = context.Event()
    processes = [context.Process(target=_wait, args=(event,), daemon=daemon) for _ in range(2)]
    for process in processes:
        process.start()
    try:
        figures = memory_figures(torch.device("cpu"))
        assert ("loader_memory_gb" in figures) == daemon
        assert figures.get("loader_memory_gb", 1.0) > 0
    finally:
        event.set()
        for process in processes:
            process.join()


def test_a_process_that_has_ended_holds_nothing():
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    assert resident_bytes(process.pid) == 0


def test_a_gpu_says_what_is_allocated_what_is_reserved_and_how_often_room_was_short(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 4 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"num_alloc_retries": 2})
    monkeypatch.setattr(memory, "resident_bytes", lambda process: 0)
    assert memory_figures(torch.device("cuda")) == {
        "peak_memory_gb": 4.0,
        "memory_gb": 3.0,
        "reserved_gb": 5.0,
        "alloc_retries": 2,
    }
