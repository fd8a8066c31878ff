"""log_mel_spectrogram: each preset against its original, on one clip."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch

from reserve_kernels import log_mel_spectrogram
from reserve_kernels.bench.case import Case, largest_difference
from reserve_kernels.bench.interleaved import OURS, Contender
from reserve_kernels.bench.log_mel_originals import NATIVE_FBANK, ORIGINALS, Original, native_fbank
from reserve_kernels.log_mel.arguments import settings_of

SECONDS = (10, 30)
TOLERANCE = {"torchaudio": 10.0, "clap": 2e-2, "clap_fusion": 2e-2, "librosa": 2e-2}
"""Largest difference: of powers up to some 10,000, of decibels; of other logarithms LOGARITHMS. The tests have tighter
bounds, on sound with less of a range."""
LOGARITHMS = 2e-2
ON_GPU = ("whisper", "whisper_128", "torchaudio")
"""Presets whose originals run on a GPU as they are called."""


def cases(device: torch.device) -> Iterator[Case]:
    """A clip of noise for each preset and length."""
    for preset, (name, make) in ORIGINALS.items():
        if device.type != "cpu" and preset not in ON_GPU:
            continue
        settings, _ = settings_of(preset, {})
        for seconds in SECONDS:
            generator = torch.Generator().manual_seed(seconds)
            samples = 0.2 * torch.randn(int(seconds * settings.sample_rate), generator=generator)
            samples = samples.to(device)
            builders = {OURS: functools.partial(_ours, preset, samples), name: functools.partial(_peer, make, samples)}
            if preset in NATIVE_FBANK and device.type == "cpu":
                make_native = functools.partial(native_fbank, NATIVE_FBANK[preset])
                builders["kaldi-native-fbank"] = functools.partial(_peer, make_native, samples)
            yield Case(
                preset,
                f"{seconds} s",
                builders,
                largest_difference,
                TOLERANCE.get(preset, LOGARITHMS),
                {"frames": settings.frames(len(samples)), "seconds_of_sound": seconds},
            )


def _ours(preset: str, samples: torch.Tensor) -> Contender:
    call = functools.partial(log_mel_spectrogram, samples, preset=preset)
    return Contender(call, call)


def _peer(make: Callable[[], Original], samples: torch.Tensor) -> Contender:
    call = functools.partial(make(), samples)
    return Contender(call, call)
