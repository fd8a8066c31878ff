"""Where the CUDA kernel of log_mel_spectrogram runs, judged by the properties of GPUs that need not be present."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from reserve_kernels import native
from reserve_kernels.log_mel.arguments import settings_of
from reserve_kernels.log_mel.availability import BACKENDS
from reserve_kernels.log_mel.native import numbers_of
from reserve_kernels.log_mel.presets import PRESETS
from reserve_kernels.log_mel.settings import LogMelSettings

pytestmark = pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))

CUDA = torch.device("cuda", 0)
# Compute capability, and the shared memory in bytes that a block can opt in to (CUDA programming guide, table of
# technical specifications).
V100, A100, RTX_4090, H100 = ((7, 0), 98_304), ((8, 0), 166_912), ((8, 9), 101_376), ((9, 0), 232_448)


def settings(speed: int = 1, **change) -> LogMelSettings:
    defaults = {"pad_mode": "reflect", "sample_rate": 22050.0, "n_fft": 1536 * speed, "hop_length": 588 * speed}
    return LogMelSettings(**(defaults | {"n_mels": 64, "f_min": 20.0, "f_max": 11025.0, "offset": 0.1} | change))


def choose(requested: str, s: LogMelSettings):
    return BACKENDS.choose(requested, CUDA, torch.float32, lambda backend: backend.unsupported(s, CUDA))


@pytest.fixture
def have(monkeypatch):
    """Simulates a CUDA device and a library with CUDA code for the choice of a back end."""

    def device(capability: tuple[int, int], shared: int) -> None:
        major, minor = capability
        properties = SimpleNamespace(major=major, minor=minor, shared_memory_per_block_optin=shared)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(native.library(), "has_cuda", True)

    return device


@pytest.mark.parametrize(
    ("device", "speed", "expected"),
    [
        (H100, 3, "cuda"),
        (A100, 3, "cuda"),
        (RTX_4090, 1, "cuda"),
        (RTX_4090, 2, "cuda"),
        (RTX_4090, 3, "reference"),  # 118,064 bytes
        (V100, 1, "reference"),
    ],
)
def test_auto_runs_the_kernel_where_the_device_can(have, device, speed, expected):
    have(*device)
    assert choose("auto", settings(speed)).name == expected


def test_naming_the_kernel_says_what_shared_memory_it_needs(have):
    have(*RTX_4090)
    message = "backend 'cuda' cannot run: these parameters need 118064 bytes of shared memory a block; .* has 101376"
    with pytest.raises(RuntimeError, match=message):
        choose("cuda", settings(3))


def test_naming_the_kernel_on_an_old_device_says_so(have):
    have(*V100)
    with pytest.raises(RuntimeError, match=r"it needs compute capability 8\.0; this device has 7\.0"):
        choose("cuda", settings())


def shared_bytes(s: LogMelSettings) -> int:
    return native.library().log_mel_cuda_shared_bytes(numbers_of(s, torch.float32))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 74_960),
        ({"hop_length": 1536}, 2 * 8 * 818 * 4 + 8 * 1536 * 4),
        ({"n_mels": 1024}, 2 * 8 * 818 * 4 + 8 * 1028 * 4),
        # Mixed passes: spectra, partial sums and samples.
        ({"hop_length": 587}, 2 * 8 * 818 * 4 + 8 * 32 * 4 + (7 * 587 + 1536) * 4),
        ({"n_fft": 8192, "hop_length": 9000}, 2 * 2 * 4360 * 4 + 2 * 32 * 4 + 2 * 8192 * 4),
        ({"n_fft": 400, "hop_length": 160, "n_mels": 1024}, 2 * 8 * 226 * 4 + 8 * 32 * 4 + 8 * 1028 * 4),
    ],
    ids=[
        "defaults",
        "frames side by side",
        "more rows than samples",
        "odd hop",
        "largest",
        "Whisper's with many bands",
    ],
)
def test_shared_memory_holds_spectra_and_samples_or_rows(change, expected):
    assert shared_bytes(settings(**change)) == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_where_the_model_does(have, preset):
    have(*RTX_4090)
    assert choose("auto", settings_of(preset, {})[0]).name == "cuda"


@pytest.mark.parametrize(
    ("change", "error"),
    [({"hop_length": 0}, ValueError), ({"n_mels": 1025}, RuntimeError), ({"n_fft": 1532}, RuntimeError)],
)
def test_shared_memory_of_unsupported_parameters_is_an_error(change, error):
    with pytest.raises(error, match="log_mel_cuda_shared_bytes: "):
        shared_bytes(settings(**change))
