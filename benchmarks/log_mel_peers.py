"""Log-mel spectrograms by other libraries: functions of [clips, samples] that return a call -> [clips, frames, bands].

Each does the whole job, from samples to logarithms.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch

from benchmarks.interleaved import Missing
from reserve_kernels.log_mel.settings import LogMelSettings

SETTINGS = LogMelSettings("reflect", 22050.0, 1536, 588, 64, 20.0, 11025.0, 0.1)

Peer = Callable[[torch.Tensor], Callable[[], torch.Tensor]]


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: a shared library fails to load
        raise Missing(f"{name} cannot be imported: {error}") from error


def torch_stft(waveform: torch.Tensor) -> Callable[[], torch.Tensor]:
    window, filters = SETTINGS.window_for(waveform), SETTINGS.filters(waveform)

    def run() -> torch.Tensor:
        spectrum = torch.stft(waveform, 1536, 588, window=window, pad_mode="reflect", return_complex=True)
        power = spectrum.abs().square()
        return (torch.log(filters @ power + 0.1) - math.log(0.1)).transpose(1, 2)

    return run


def torchaudio(waveform: torch.Tensor) -> Callable[[], torch.Tensor]:
    mel = _module("torchaudio.transforms").MelSpectrogram(
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
    mel = mel.to(waveform.device)
    return lambda: (torch.log(mel(waveform) + 0.1) - math.log(0.1)).transpose(1, 2)


def librosa(waveform: torch.Tensor) -> Callable[[], torch.Tensor]:
    feature = _module("librosa").feature
    samples, window = waveform.numpy(), SETTINGS.window_for(waveform).numpy()

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


def dali(waveform: torch.Tensor) -> Callable[[], torch.Tensor]:
    """DALI's spectrogram and filter bank, on the device of the waveform."""
    dali = _module("nvidia.dali")
    fn, log = dali.fn, dali.math.log
    window = SETTINGS.window_for(waveform).tolist()
    on_gpu = waveform.is_cuda
    batch = list(waveform) if on_gpu else list(waveform.numpy())

    # No prefetching: it would run while other implementations are timed.
    ahead = {"prefetch_queue_depth": 1, "exec_async": False, "exec_pipelined": False}

    @dali.pipeline_def(
        batch_size=len(batch), num_threads=torch.get_num_threads(), device_id=0 if on_gpu else None, **ahead
    )
    def pipeline():
        audio = fn.external_source(lambda: batch, device="gpu" if on_gpu else "cpu", no_copy=True)
        power = fn.spectrogram(audio, nfft=1536, window_length=1536, window_step=588, window_fn=window)
        mel = fn.mel_filter_bank(power, nfilter=64, sample_rate=22050.0, freq_low=20.0, freq_high=11025.0)
        return log(mel + 0.1) - math.log(0.1)

    built = pipeline()
    built.build()

    def run() -> torch.Tensor:
        # On a GPU, DLPack passes the result without a copy to the host.
        rows = built.run()[0].as_tensor()
        return (torch.from_dlpack(rows) if on_gpu else torch.from_numpy(np.asarray(rows))).transpose(1, 2)

    return run


CPU_PEERS: dict[str, Peer] = {"torch.stft": torch_stft, "torchaudio": torchaudio, "librosa": librosa, "DALI": dali}
CUDA_PEERS: dict[str, Peer] = {"torch.stft": torch_stft, "torchaudio": torchaudio, "DALI": dali}
