"""The originals of log_mel_spectrogram's presets: also in float64, and skipping tests where they are not installed."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from reserve_kernels.bench.interleaved import Missing
from reserve_kernels.bench.log_mel_originals import ORIGINALS, Original
from tests.helpers.torch_defaults import torch_defaults


def installed(make: Callable[[], Any]) -> Any:
    """What `make` returns; the test is skipped if its library is not installed."""
    try:
        return make()
    except Missing as reason:
        pytest.skip(str(reason))


def original(preset: str) -> Original:
    """The original of a preset. Of float64 samples it computes all in float64, filters included: what it means."""
    make = ORIGINALS[preset][1]
    installed(make)

    def run(samples: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings(), _whisper_filters(preset, samples.dtype):
            # Of bands without a frequency.
            warnings.simplefilter("ignore")
            # Made anew: torchaudio takes the default dtype for its window and its filters.
            with torch_defaults(samples.dtype):
                return make()(samples)

    return run


@contextlib.contextmanager
def _whisper_filters(preset: str, dtype: torch.dtype):
    """Whisper multiplies its float32 filters by a spectrum of the samples' dtype."""
    if not preset.startswith("whisper"):
        yield
        return
    audio = pytest.importorskip("whisper.audio")
    own = audio.mel_filters
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "mel_filters", lambda device, n_mels: own(device, n_mels).to(dtype))
        yield
