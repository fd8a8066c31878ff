"""log_mel_spectrogram against torch.stft, torchaudio, librosa and DALI, on 32 clips of 5 s.

    pytest benchmarks/log_mel.py --benchmark-json=benchmarks/results/NAME.json

Each peer does the whole job, from samples to logarithms, and its result is compared before it is timed.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmarks.interleaved import compare, cpu_limits
from reserve_kernels import log_mel_spectrogram, native
from reserve_kernels.log_mel.reference import LogMelSettings

SETTINGS = LogMelSettings("reflect", 22050.0, 1536, 588, 64, 20.0, 11025.0, 0.1)
CLIPS, SAMPLES = 32, 110250
FRAMES = CLIPS * SETTINGS.frames(SAMPLES)

# Per frame: samples that no earlier frame has read, and the row. Window 1536; half-size complex transform, counted as
# 5 n log2 n; unpacking and power 16 a bin pair; bands 2 a weight (each bin has about two); logarithm 20 a band.
BYTES = 4 * (588 + 64)
FLOPS = 1536 + int(5 * 768 * math.log2(768)) + 16 * 384 + 2 * 2 * 769 + 20 * 64

Call = Callable[[], torch.Tensor]


def torch_stft(waveform: torch.Tensor) -> Call:
    window, filters = SETTINGS.window(waveform), SETTINGS.filters(waveform)

    def run() -> torch.Tensor:
        spectrum = torch.stft(waveform, 1536, 588, window=window, pad_mode="reflect", return_complex=True)
        power = spectrum.abs().square()
        return (torch.log(filters @ power + 0.1) - math.log(0.1)).transpose(1, 2)

    return run


def torchaudio(waveform: torch.Tensor) -> Call:
    transforms = pytest.importorskip("torchaudio.transforms")
    mel = transforms.MelSpectrogram(
        22050,
        n_fft=1536,
        hop_length=588,
        f_min=20.0,
        f_max=11025.0,
        n_mels=64,
        window_fn=torch.hann_window,
        wkwargs={"periodic": False},
        norm="slaney",
        mel_scale="slaney",
    )
    return lambda: (torch.log(mel(waveform) + 0.1) - math.log(0.1)).transpose(1, 2)


def librosa(waveform: torch.Tensor) -> Call:
    feature = pytest.importorskip("librosa").feature
    samples, window = waveform.numpy(), SETTINGS.window(waveform).numpy()

    def run() -> torch.Tensor:
        mel = feature.melspectrogram(
            y=samples,
            sr=22050,
            n_fft=1536,
            hop_length=588,
            window=window,
            pad_mode="reflect",
            n_mels=64,
            fmin=20.0,
            fmax=11025.0,
        )
        return torch.from_numpy(np.log(mel + 0.1) - math.log(0.1)).transpose(1, 2)

    return run


def dali(waveform: torch.Tensor) -> Call:
    dali = pytest.importorskip("nvidia.dali")
    fn, log = dali.fn, dali.math.log
    batch, window = list(waveform.numpy()), SETTINGS.window(waveform).tolist()

    # Nothing ahead of the call: it would run while others are timed.
    ahead = {"prefetch_queue_depth": 1, "exec_async": False, "exec_pipelined": False}

    @dali.pipeline_def(batch_size=CLIPS, num_threads=torch.get_num_threads(), device_id=None, **ahead)
    def pipeline():
        audio = fn.external_source(lambda: batch, no_copy=True)
        power = fn.spectrogram(audio, nfft=1536, window_length=1536, window_step=588, window_fn=window)
        mel = fn.mel_filter_bank(power, nfilter=64, sample_rate=22050.0, freq_low=20.0, freq_high=11025.0)
        return log(mel + 0.1) - math.log(0.1)

    built = pipeline()
    built.build()
    return lambda: torch.from_numpy(built.run()[0].as_array()).transpose(1, 2)


PEERS = {"torch.stft": torch_stft, "torchaudio": torchaudio, "librosa": librosa, "dali": dali}
DISTRIBUTIONS = {"torch.stft": "torch", "dali": "nvidia-dali-cuda130"}


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    """Sets PyTorch's number of threads, which the native op takes too, and that of NumPy's BLAS."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if request.param > (os.cpu_count() or 1):
        pytest.skip(f"only {os.cpu_count()} CPUs")
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    # Idle BLAS threads of another number would spin on the others' time.
    with threadpoolctl.threadpool_limits(request.param, user_api="blas"):
        yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def waveform() -> torch.Tensor:
    """[clips, samples] of noise with a peak of about 1, as prepared audio has."""
    return torch.randn(CLIPS, SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.2


@pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))
@pytest.mark.parametrize("peer", PEERS)
def test_cpu(benchmark, waveform, threads, peer):
    benchmark.group = f"log_mel, {CLIPS} clips of 5 s, {threads} threads"
    run_peer = PEERS[peer](waveform)
    ours = lambda: log_mel_spectrogram(waveform, backend="native")  # noqa: E731
    error = float((run_peer() - ours()).abs().max())
    assert error < 2e-3, f"{peer} computes something else: {error}"
    compare(benchmark, ours, run_peer, rounds=21)
    limits = cpu_limits()
    benchmark.extra_info.update(
        op="log_mel_spectrogram",
        peer=peer,
        peer_version=importlib.metadata.version(DISTRIBUTIONS.get(peer, peer)),
        torch=torch.__version__,
        machine=platform.machine(),
        threads=threads,
        frames=FRAMES,
        bytes=BYTES * FRAMES,
        flops=FLOPS * FRAMES,
        largest_difference=error,
        **limits,
    )
    if benchmark.stats is not None:
        median = benchmark.stats.stats.median
        benchmark.extra_info.update(
            ns_per_frame=median / FRAMES * 1e9,
            fraction_of_copy_bandwidth=BYTES * FRAMES / median / limits["copy_bytes_per_s"],
            fraction_of_matmul_rate=FLOPS * FRAMES / median / limits["matmul_flops_per_s"],
        )


@pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))
def test_cpu_scaling(benchmark, waveform):
    """Two threads against one, in turn: `speedup` is 2 where scaling is linear."""
    benchmark.group = "log_mel, 2 threads against 1"
    before = torch.get_num_threads()

    def with_threads(threads: int) -> Callable[[], object]:
        def run() -> object:
            torch.set_num_threads(threads)
            return log_mel_spectrogram(waveform, backend="native")

        return run

    try:
        compare(benchmark, with_threads(2), with_threads(1), rounds=41)
    finally:
        torch.set_num_threads(before)
    benchmark.extra_info.update(op="log_mel_spectrogram", peer="1 thread", threads=2, frames=FRAMES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("peer", ["torch.stft", "torchaudio"])
def test_cuda(benchmark, peer):
    """4096 clips of 5 s, more than the caches hold; times include the launch, and end when the GPU is done."""
    benchmark.group = "log_mel, 4096 clips of 5 s, CUDA"
    waveform = torch.randn(4096, SAMPLES, device="cuda") * 0.2
    # The peers hold complex spectra of everything: in parts, as their memory asks for.
    parts = [PEERS[peer](part) for part in waveform.split(512)]

    def run_peer() -> torch.Tensor:
        out = torch.cat([part() for part in parts])
        torch.cuda.synchronize()
        return out

    def ours() -> torch.Tensor:
        out = log_mel_spectrogram(waveform, backend="cuda")
        torch.cuda.synchronize()
        return out

    error = float((run_peer() - ours()).abs().max())
    assert error < 2e-3, f"{peer} computes something else: {error}"
    compare(benchmark, ours, run_peer, rounds=21)
    frames = 4096 * SETTINGS.frames(SAMPLES)
    benchmark.extra_info.update(
        op="log_mel_spectrogram", peer=peer, gpu=torch.cuda.get_device_name(), frames=frames, bytes=BYTES * frames
    )
    if benchmark.stats is not None:
        benchmark.extra_info["ns_per_frame"] = benchmark.stats.stats.median / frames * 1e9
