"""log_mel_spectrogram against torch.stft, torchaudio, librosa and DALI, on clips of 5 s.

Each peer does the whole job, from samples to logarithms, and its result is compared before it is timed.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch

from benchmarks.cuda import EventClock, cuda_label, cuda_limits, peak_extra_bytes
from benchmarks.interleaved import OURS, Contender, Measured, Missing, measure, publish, replayed
from benchmarks.log_mel_peers import CPU_PEERS, CUDA_PEERS, SETTINGS, Peer
from benchmarks.machine import cpu_label, cpu_limits, torch_threads
from reserve_kernels import log_mel_spectrogram, native

OP = "log_mel_spectrogram"
SAMPLES = 110250
CLIPS = 32
CPU_SCALING = (1, 4, 16, 64, 128)
CUDA_CLIPS = 4096
CUDA_SCALING = (1, 16, 256, 1024)
PART = 512
"""Clips that a peer takes at a time on a GPU, since it stores all their complex spectra."""

# Per frame. Bytes: the samples that no earlier frame has read, and the row. FLOPs: 1536 for the window, 5 n log2 n for
# a complex transform of half the size, 16 a bin pair for unpacking and power, 2 a weight for the bands (about two
# weights a bin), and 20 a band for the logarithm.
BYTES = 4 * (588 + 64)
FLOPS = 1536 + int(5 * 768 * math.log2(768)) + 16 * 384 + 2 * 2 * 769 + 20 * 64


def noise(clips: int, device: str) -> torch.Tensor:
    """Noise [clips, samples] with a peak of about 1, like prepared audio."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(clips, SAMPLES, generator=generator, device=device) * 0.2


def largest_difference(out: torch.Tensor, ours: torch.Tensor) -> float:
    return float((out - ours).abs().max())


def _facts(clips: int, limits: dict[str, float]) -> dict[str, Any]:
    frames = clips * SETTINGS.frames(SAMPLES)
    return {"clips": clips, "frames": frames, "bytes": BYTES * frames, "flops": FLOPS * frames, **limits}


@functools.cache
def on_cpu(clips: int, threads: int) -> Measured:
    with torch_threads(threads):
        waveform = noise(clips, "cpu")

        def build(peer: Peer) -> Contender:
            call = peer(waveform)
            return Contender(call, call)

        def ours() -> Contender:
            reason = native.cpu_unavailable()
            if reason is not None:
                raise Missing(reason)
            call = functools.partial(log_mel_spectrogram, waveform, backend="native")
            return Contender(call, call)

        builders = {OURS: ours} | {name: functools.partial(build, peer) for name, peer in CPU_PEERS.items()}
        measured = measure(builders, rounds=21, difference=largest_difference, tolerance=2e-3, warm_up=3)
        measured.facts = _facts(clips, cpu_limits(threads)) | {"threads": threads}
    return measured


@replayed
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("implementation", [OURS, *CPU_PEERS])
def test_cpu(benchmark, implementation, threads):
    measured = on_cpu(CLIPS, threads)
    publish(benchmark, measured, implementation, op=OP, device=cpu_label(threads), label=f"{CLIPS} clips of 5 s")


@replayed
@pytest.mark.parametrize("clips", CPU_SCALING)
@pytest.mark.parametrize("implementation", [OURS, *CPU_PEERS])
def test_cpu_scaling(benchmark, implementation, clips):
    label = f"{clips} clips of 5 s"
    publish(benchmark, on_cpu(clips, 1), implementation, op=OP, device=cpu_label(1), label=label, case="scaling")


@functools.cache
def with_threads() -> Measured:
    """Our op with one and with two threads, interleaved."""
    waveform = noise(CLIPS, "cpu")

    def build(threads: int) -> Contender:
        def run() -> torch.Tensor:
            torch.set_num_threads(threads)
            return log_mel_spectrogram(waveform, backend="native")

        return Contender(run, run)

    with torch_threads(2):
        builders = {OURS: functools.partial(build, 2), "reserve, 1 thread": functools.partial(build, 1)}
        return measure(builders, rounds=41, difference=largest_difference, tolerance=0.0)


@replayed
@pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))
@pytest.mark.parametrize("implementation", [OURS, "reserve, 1 thread"])
def test_cpu_threads(benchmark, implementation):
    publish(benchmark, with_threads(), implementation, op=OP, device="CPU", label="2 threads against 1", case="threads")


@functools.cache
def on_cuda(clips: int) -> Measured:
    """Launch overhead included; the cache is flushed before each call."""
    waveform = noise(clips, "cuda")

    def build(peer: Peer) -> Contender:
        # In parts, as a loop over a data set would: their intermediates are large.
        parts = [peer(part) for part in waveform.split(PART)]

        def run() -> list[torch.Tensor]:
            return [part() for part in parts]

        return Contender(run, lambda: torch.cat(run()), details={"peak_extra_bytes": peak_extra_bytes(run)})

    def ours() -> Contender:
        run = functools.partial(log_mel_spectrogram, waveform, backend="cuda")
        reason = native.cuda_unavailable()
        if reason is not None:
            raise Missing(reason)
        return Contender(run, run, details={"peak_extra_bytes": peak_extra_bytes(run)})

    builders = {OURS: ours} | {name: functools.partial(build, peer) for name, peer in CUDA_PEERS.items()}
    measured = measure(builders, rounds=21, difference=largest_difference, tolerance=2e-3, clock=EventClock())
    measured.facts = _facts(clips, cuda_limits(torch.float32))
    return measured


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize("implementation", [OURS, *CUDA_PEERS])
def test_cuda(benchmark, implementation):
    measured = on_cuda(CUDA_CLIPS)
    publish(benchmark, measured, implementation, op=OP, device=cuda_label(), label=f"{CUDA_CLIPS} clips of 5 s")


@replayed
@pytest.mark.gpu
@pytest.mark.parametrize("clips", CUDA_SCALING)
@pytest.mark.parametrize("implementation", [OURS, *CUDA_PEERS])
def test_cuda_scaling(benchmark, implementation, clips):
    label = f"{clips} clips of 5 s"
    publish(benchmark, on_cuda(clips), implementation, op=OP, device=cuda_label(), label=label, case="scaling")
