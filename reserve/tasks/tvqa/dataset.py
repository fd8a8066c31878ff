"""TVQA's questions as training examples, a function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reserve.config import MEL_CHANNELS, ModelConfig
from reserve.data.float_images import finetuning_image
from reserve.data.tokenizer import Tokenizer
from reserve.tasks.record_cache import RecordCache
from reserve.tasks.tvqa.annotations import Question
from reserve.tasks.tvqa.batch import Example
from reserve.tasks.tvqa.clip_files import ClipFiles
from reserve.tasks.tvqa.sequences import audio_sequences, option_ids, text_sequences
from reserve.tasks.tvqa.sound import SEGMENT_FRAMES, subsegments
from reserve.tasks.tvqa.stored import StoredQuestion, prepare_question, question_key, read_question_parts
from reserve.tasks.tvqa.times import MAX_SEGMENTS

MAX_SOUND_DELAY = 4
"""Mel frames by which training delays the sound at most."""


class TvqaDataset:
    """Questions indexed by (epoch, index).

    With `training`, each picture is scaled and cropped at random and the sound is shifted (TASKS 2); without it,
    nothing is random. A damaged file of `cache` is prepared again.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        files: ClipFiles,
        cache: RecordCache,
        tokenizer: Tokenizer,
        model: ModelConfig,
        *,
        seed: int = 0,
        training: bool,
    ) -> None:
        self.questions, self.files, self.cache = list(questions), files, cache
        self.tokenizer, self.model = tokenizer, model
        self.seed, self.training = seed, training

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, index = key
        question = self.questions[index]
        parts = self.cache.get(question_key(question), lambda: prepare_question(question, self.files))
        rng = np.random.default_rng([self.seed, epoch, index]) if self.training else None
        return self._example(question, read_question_parts(parts), rng)

    def _example(self, question: Question, stored: StoredQuestion, rng: np.random.Generator | None) -> Example:
        images = np.zeros((MAX_SEGMENTS, *self.model.image_size, 3), np.float32)
        for number, frame in enumerate(stored.frames):
            images[number] = finetuning_image(frame, self.model.image_size, rng=rng)
        sounds = seven_segments(stored.log_mels if rng is None else shifted_sound(stored.log_mels, rng))
        options = option_ids(self.tokenizer, stored.localization, question.question, question.choices)
        return Example(
            images=images,
            audio_clips=subsegments(sounds),
            audio=audio_sequences(options),
            text=text_sequences(options, [self.tokenizer.encode(text) for text in stored.subtitles]),
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
