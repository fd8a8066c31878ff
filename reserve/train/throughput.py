"""How fast a run is, how much of its device it uses, and whether it waits for data."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from reserve.model.flops import Workload
from reserve.train.distributed import Ranks
from reserve.train.memory import memory_figures

BF16_PEAKS = {
    # NVIDIA H200 Tensor Core GPU datasheet: 1,979 TFLOPS with sparsity.
    r"\bG?H200\b": 989e12,
    # NVIDIA H100 Tensor Core GPU datasheet: NVL 1,671, PCIe 1,513, SXM 1,979 TFLOPS with sparsity.
    r"\bH100 NVL\b": 835e12,
    r"\bH100 PCIe\b": 756e12,
    r"\bH100\b": 989e12,
    # NVIDIA HGX B200 datasheet: 36 PFLOPS with sparsity, eight GPUs.
    r"\bB200\b": 2250e12,
    # NVIDIA A100 Tensor Core GPU datasheet: 312 TFLOPS, 624 with sparsity.
    r"\bA100\b": 312e12,
    # NVIDIA L40S datasheet: 362 TFLOPS, 733 with sparsity.
    r"\bL40S\b": 362e12,
    # NVIDIA A10 datasheet: 125 TFLOPS, 250 with sparsity.
    r"\bA10\b": 125e12,
    # NVIDIA L4 datasheet: 242 TFLOPS with sparsity.
    r"\bL4\b": 121e12,
}
"""Dense bfloat16 FLOPs per second by what PyTorch calls the device, the first that fits. Where the datasheet has only
the rate with sparsity, half of it."""


def bf16_peak(device_name: str) -> float | None:
    """The device's dense bfloat16 FLOPs per second by its datasheet, None if it is not in BF16_PEAKS."""
    return next((peak for name, peak in BF16_PEAKS.items() if re.search(name, device_name)), None)


class Throughput:
    """Counts the work of all ranks between two lines of metrics.

    `dtype` is that of matrix products: `mfu`, a share of the bfloat16 peak, is for torch.bfloat16 only.
    """

    def __init__(self, ranks: Ranks, dtype: torch.dtype) -> None:
        self.ranks = ranks
        has_peak = ranks.device.type == "cuda" and dtype == torch.bfloat16
        self.peak = bf16_peak(torch.cuda.get_device_name(ranks.device)) if has_peak else None
        self._work: Workload | None
        self._start_line()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time spent inside as waiting for data."""
        with self._timed("waiting"):
            yield

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Counts the time spent inside as held by a checkpoint."""
        with self._timed("saving"):
            yield

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Counts the time spent inside as an evaluation's, on the ranks that wait for it too."""
        with self._timed("evaluating"):
            yield

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[what] += time.perf_counter() - start

    def add(self, work: Iterable[Workload | None]) -> None:
        """Counts a step's work; None is work that is not known."""
        for part in work:
            self._work = None if part is None or self._work is None else self._work + part

    def since_last(self) -> dict[str, float]:
        """What was counted since the last call, on all ranks; all must call it.

        `tokens_per_second` of all ranks together; `tflops` (10^12 FLOPs per second) and `mfu` (their share of the
        device's peak) of each device; `seconds_waiting` and `share_waiting`, the ranks' mean; `seconds_saving`,
        `seconds_evaluating` and memory (`reserve.train.memory`) of the rank itself. What is not known is left out.
        Rates and shares leave out the time of evaluations.
        """
        spent, work, count = self._spent, self._work or Workload(0, 0), self.ranks.world_size
        seconds = time.perf_counter() - self._start - spent["evaluating"]
        waited, tokens, flops, unknown = self.ranks.sum([spent["waiting"], work.tokens, work.flops, self._work is None])
        self._start_line()
        line = {}
        if not unknown:
            per_device = flops / count / seconds
            line = {"tokens_per_second": tokens / seconds, "tflops": per_device / 1e12}
            if self.peak is not None:
                line["mfu"] = per_device / self.peak
        return {
            **line,
            **memory_figures(self.ranks.device),
            "seconds_waiting": waited / count,
            "share_waiting": waited / count / seconds,
            "seconds_saving": spent["saving"],
            "seconds_evaluating": spent["evaluating"],
        }

    def _start_line(self) -> None:
        self._work = Workload(0, 0)
        self._spent = dict.fromkeys(("waiting", "saving", "evaluating"), 0.0)
        self._start = time.perf_counter()
