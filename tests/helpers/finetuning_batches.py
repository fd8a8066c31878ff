"""Random batches of the finetuned tasks, without media: sequences, pictures and sounds of the right shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from reserve.config import ModelConfig
from reserve.tasks import find_task
from reserve.tasks.kinetics600.batch import Example as KineticsExample
from reserve.tasks.tvqa.batch import Example as TvqaExample
from reserve.tasks.tvqa.sequences import audio_sequences, text_sequences
from reserve.tasks.vcr.dataset import VcrExample, choice_sequences

CLASSES = 5


def finetuned_task(name: str, sizes: ModelConfig) -> Any:
    """The task with a model of these sizes."""
    kind: Any = find_task(name)
    changes = {"outputs": CLASSES} if name == "kinetics600" else {}
    config = kind.model_config(sizes)
    return kind(model=type(config)(**vars(config) | changes))


def finetuning_batch(name: str, sizes: ModelConfig, *, examples: int = 2, seed: int = 0) -> Any:
    """A batch on the CPU; others of another seed have other numbers of tokens."""
    rng = np.random.default_rng(seed)
    make = {"vcr": _vcr, "tvqa": _tvqa, "kinetics600": _kinetics}[name]
    return finetuned_task(name, sizes).collate([make(rng, sizes) for _ in range(examples)])


def _words(rng: np.random.Generator, sizes: ModelConfig, most: int = 9) -> list[int]:
    return rng.integers(10, sizes.vocab_size, rng.integers(1, most)).tolist()


def _images(rng: np.random.Generator, sizes: ModelConfig, *shape: int) -> np.ndarray:
    return rng.random((*shape, *sizes.image_size, 3), dtype=np.float32)


def _vcr(rng: np.random.Generator, sizes: ModelConfig) -> VcrExample:
    problems = [choice_sequences(_words(rng, sizes), [_words(rng, sizes) for _ in range(4)], 24) for _ in range(2)]
    return VcrExample(_images(rng, sizes), np.stack(problems), rng.integers(4, size=2))


def _tvqa(rng: np.random.Generator, sizes: ModelConfig) -> TvqaExample:
    options = [_words(rng, sizes) for _ in range(5)]
    return TvqaExample(
        images=_images(rng, sizes, 7),
        audio_clips=rng.random((7, 3, 60, 65), dtype=np.float32),
        audio=audio_sequences(options, 160),
        text=text_sequences(options, [_words(rng, sizes) for _ in range(7)], 160),
        label=int(rng.integers(5)),
    )


def _kinetics(rng: np.random.Generator, sizes: ModelConfig) -> KineticsExample:
    sound = rng.random((1, 2, 3, 60, 65), dtype=np.float32) if rng.random() < 0.5 else None
    return KineticsExample(_images(rng, sizes, 1, 2), sound, int(rng.integers(CLASSES)))
