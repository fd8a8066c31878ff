"""TVQA's questions as training examples, a function of (seed, epoch, index)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reserve.config import MEL_CHANNELS, ModelConfig
from reserve.data.float_images import finetuning_image
from reserve.data.tokenizer import Tokenizer
from reserve.tasks.finetuning import check_scales
from reserve.tasks.record_cache import RecordCache
from reserve.tasks.stored_sound import SEGMENT_FRAMES, subsegments
from reserve.tasks.tvqa.annotations import Question, Questions
from reserve.tasks.tvqa.batch import Example
from reserve.tasks.tvqa.clip_files import ClipFiles
from reserve.tasks.tvqa.sequences import audio_sequences, option_ids, text_sequences
from reserve.tasks.tvqa.stored import StoredQuestion, prepare_question, question_key, read_question_parts
from reserve.tasks.tvqa.times import MAX_SEGMENTS

MAX_SOUND_DELAY = 4
"""Mel frames by which training delays the sound at most."""


@dataclass(frozen=True)
class TvqaSettings:
    """How TVQA's questions become examples (SPEC 10.8)."""

    lang_seq_len: int = 256
    """Language tokens of a sequence: the span, the question, an answer and MASK, then sound or subtitles. Longer ones
    are cut."""
    random_scale_min: float = 1.0
    """Smallest factor on the size that a training picture is resized to, before it is cropped at random."""
    random_scale_max: float = 1.1
    """Largest such factor."""
    cache: Path | None = None
    """Folder of prepared questions that runs share; null keeps them in the run's folder."""

    def __post_init__(self) -> None:
        if self.lang_seq_len < 2:
            raise ValueError(f"examples.lang_seq_len must be at least 2; got {self.lang_seq_len}")
        check_scales(self.random_scale_min, self.random_scale_max)


class TvqaDataset:
    """Questions `indices` of a split, asked for as (epoch, index).

    With `training`, each picture is scaled and cropped at random and the sound is shifted (SPEC 10.8); without it,
    nothing is random. A damaged file of `cache` is prepared again.
    """

    def __init__(
        self,
        questions: Questions,
        indices: np.ndarray,
        files: ClipFiles,
        cache: RecordCache,
        tokenizer: Tokenizer,
        model: ModelConfig,
        settings: TvqaSettings,
        *,
        seed: int = 0,
        training: bool,
    ) -> None:
        self.questions, self.indices = questions, indices
        self.files, self.cache = files, cache
        self.tokenizer, self.model, self.settings = tokenizer, model, settings
        self.seed, self.training = seed, training

    def __len__(self) -> int:
        return len(self.indices)

    def question(self, index: int) -> Question:
        """The annotation of an example."""
        return self.questions[int(self.indices[index])]

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, index = key
        question = self.question(index)
        sources = self.files.sources(question)
        parts = self.cache.get(question_key(question), lambda: prepare_question(question, self.files), sources)
        rng = np.random.default_rng([self.seed, epoch, index]) if self.training else None
        return self._example(question, read_question_parts(parts), rng)

    def _example(self, question: Question, stored: StoredQuestion, rng: np.random.Generator | None) -> Example:
        images = np.zeros((MAX_SEGMENTS, *self.model.image_size, 3), np.float32)
        scales = (self.settings.random_scale_min, self.settings.random_scale_max)
        for number, frame in enumerate(stored.frames):
            images[number] = finetuning_image(frame, self.model.image_size, rng=rng, scale_range=scales)
        sounds = seven_segments(stored.log_mels if rng is None else shifted_sound(stored.log_mels, rng))
        options = option_ids(self.tokenizer, stored.localization, question.question, question.choices)
        subtitles = [self.tokenizer.encode_plain(text) for text in stored.subtitles]
        return Example(
            images=images,
            audio_clips=subsegments(sounds),
            audio=audio_sequences(options, self.settings.lang_seq_len),
            text=text_sequences(options, subtitles, self.settings.lang_seq_len),
            label=question.label or 0,
        )


def seven_segments(log_mels: np.ndarray) -> np.ndarray:
    """Log-mels float32 [n, 180, 65] of n segments, followed by silence to [7, 180, 65]; the last channel is 1."""
    padded = np.zeros((MAX_SEGMENTS, SEGMENT_FRAMES, MEL_CHANNELS), np.float32)
    padded[: len(log_mels)] = log_mels
    padded[..., -1] = 1
    return padded


def shifted_sound(log_mels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Log-mels [n, 180, 65] of segments, delayed by 0 to 4 mel frames: of the same shape.

    Noise with the mean and deviation of each channel fills the gap.
    """
    frames = log_mels.reshape(-1, MEL_CHANNELS)
    noise = rng.normal(frames.mean(0), frames.std(0), (MAX_SOUND_DELAY, MEL_CHANNELS)).astype(np.float32)
    first = rng.integers(MAX_SOUND_DELAY + 1)
    return np.concatenate((noise, frames))[first : first + len(frames)].reshape(log_mels.shape)
