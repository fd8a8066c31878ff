"""The modules of reserve_kernels.compat against the originals whose place they take."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch

from reserve_kernels.bench.case import Case, largest_difference, module
from reserve_kernels.bench.interleaved import OURS, Contender, largest_relative_difference
from reserve_kernels.bench.open_clip_original import open_clip_loss

SECONDS = (10, 30)
DIM, PAIRS = 512, (512, 2048)
RATES = {"WhisperFeatureExtractor": 16000, "ASTFeatureExtractor": 16000, "ClapFeatureExtractor": 48000}


def cases(device: torch.device) -> Iterator[Case]:
    """One call of each: features of a clip, from samples to what the model takes, and a loss with its gradients."""
    for seconds in SECONDS:
        samples = _noise(16000 * seconds)
        yield _case(
            "whisper.audio.log_mel_spectrogram",
            f"{seconds} s",
            "openai-whisper",
            "whisper",
            "whisper.audio",
            functools.partial(_whisper, samples=samples.to(device)),
        )
        yield _case(
            "torchaudio.transforms.MelSpectrogram",
            f"{seconds} s",
            "torchaudio",
            "torchaudio",
            "torchaudio.transforms",
            functools.partial(_torchaudio, samples=samples.to(device)),
            tolerance=10.0,
        )
        if device.type == "cpu":
            for name, rate in RATES.items():
                clip = _noise(rate * seconds).numpy()
                yield _case(
                    f"transformers.{name}",
                    f"{seconds} s",
                    "transformers",
                    "transformers",
                    "transformers",
                    functools.partial(_extractor, name=name, clip=clip, rate=rate),
                )

    for name, scalars in (("ClipLoss", [14.0]), ("SigLipLoss", [10.0, -10.0])):
        for pairs in PAIRS:
            inputs = [
                torch.nn.functional.normalize(_noise(2 * pairs * DIM).view(2, pairs, DIM), dim=-1)[i] for i in (0, 1)
            ]
            inputs = [x.to(device).requires_grad_() for x in (*inputs, *map(torch.tensor, scalars))]
            builders = {
                OURS: functools.partial(
                    _loss, functools.partial(module, "reserve_kernels.compat.open_clip"), name, inputs
                ),
                "open_clip": functools.partial(_loss, open_clip_loss, name, inputs),
            }
            yield Case(
                f"open_clip.{name}, forward and backward",
                f"{pairs} pairs of {DIM}",
                builders,
                largest_relative_difference,
                1e-3,
            )


def _loss(library: Callable[[], ModuleType], name: str, inputs: list[torch.Tensor]) -> Contender:
    loss = getattr(library(), name)()

    def step() -> Any:
        return torch.autograd.grad(loss(*inputs), inputs)

    return Contender(step, lambda: [loss(*inputs).detach(), *step()])


def _noise(samples: int) -> torch.Tensor:
    return 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


def _whisper(library: ModuleType, samples: torch.Tensor) -> Callable[[], torch.Tensor]:
    return functools.partial(library.log_mel_spectrogram, samples)


def _torchaudio(library: ModuleType, samples: torch.Tensor) -> Callable[[], torch.Tensor]:
    return functools.partial(library.MelSpectrogram().to(samples.device), samples)


def _extractor(library: ModuleType, name: str, clip: np.ndarray, rate: int) -> Callable[[], torch.Tensor]:
    extractor = getattr(library, name)()
    if name == "ClapFeatureExtractor":
        # Crops of longer clips are random.
        clip = clip[: rate * extractor.max_length_s]

    def run() -> torch.Tensor:
        features = extractor(clip, sampling_rate=rate, return_tensors="pt")
        return features[extractor.model_input_names[0]]

    return run


def _case(
    group: str,
    name: str,
    peer: str,
    ours: str,
    theirs: str,
    make: Callable[[ModuleType], Callable[[], Any]],
    tolerance: float = 2e-2,
) -> Case:
    def build(library: str) -> Contender:
        call = make(module(library))
        return Contender(call, call)

    builders = {
        OURS: functools.partial(build, f"reserve_kernels.compat.{ours}"),
        peer: functools.partial(build, theirs),
    }
    return Case(group, name, builders, largest_difference, tolerance)
