"""Random examples with the sizes of real ones, for training steps without videos in benchmarks and tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from reserve.batch.vocabulary import SPECIAL_TOKENS
from reserve.config import SEGMENT_SECONDS, DataConfig, ModelConfig, TrainConfig
from reserve.tasks.pretrain.batch import split_sources
from reserve.tasks.pretrain.dataset import MAX_RANDOM_TEXT, Example, audio_clips
from reserve.tasks.pretrain.masking import draw_subsegment_starts, mask_text
from reserve.tasks.pretrain.task import Pretrain
from reserve.tasks.pretrain.text import MetadataPrefixes, UnmaskedText

TOKENS_PER_SECOND = 3.2
"""Speech: 2.5 words per second, 1.3 tokens per word."""
METADATA_TOKENS = {"title": 10, "description": 60, "tags": 12}
PREFIXES = MetadataPrefixes(*(np.array([len(SPECIAL_TOKENS) + i], np.int32) for i in range(3)))


class RandomExamples(Dataset[Example]):
    """`size` examples with random frames, sounds and words; lengths and masking are as in pretraining (SPEC 7).

    Indexed by (epoch, index). The content of an example depends on (seed, index), its masking also on the epoch, so a
    model that trains correctly can memorise a few of them.
    """

    def __init__(self, size: int, data: DataConfig, model: ModelConfig, *, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1; got {size}")
        self.size, self.data, self.model, self.seed = size, data, model, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, index = key
        data, model = self.data, self.model
        content = np.random.default_rng([self.seed, index])
        masking = np.random.default_rng([self.seed, index, epoch])
        text = self._text(content)
        log_mel = content.standard_normal((data.num_segments, data.spec_size, data.num_mels), dtype=np.float32)
        images = content.integers(0, 256, (data.num_segments, *model.image_size, 3), dtype=np.uint8)
        starts = draw_subsegment_starts(masking, data, model.audio_seq_length)
        source = text.video_src_index.reshape(data.num_segment_groups, -1).astype(np.int64)
        return Example(
            images=images,
            audio_clips=audio_clips(log_mel, text.playback_speed, starts, model.audio_seq_length),
            text=mask_text(text, starts, PREFIXES, data, model, masking),
            text2audio_source=split_sources(source, masking),
            audio2text_source=split_sources(source, masking),
            span_noise=masking.gumbel(size=data.num_text_spans),
        )

    def _text(self, rng: np.random.Generator) -> UnmaskedText:
        segments = self.data.num_segments
        counts = rng.poisson(TOKENS_PER_SECOND * SEGMENT_SECONDS, segments)
        starts = np.concatenate([np.sort(rng.uniform(0, SEGMENT_SECONDS - 0.3, n)) for n in counts]).astype(np.float32)
        random_text = self._tokens(rng, MAX_RANDOM_TEXT)
        return UnmaskedText(
            token_ids=self._tokens(rng, len(starts)),
            token_start=starts,
            token_end=starts + np.float32(0.3),
            token_segment=np.repeat(np.arange(segments), counts).astype(np.int32),
            playback_speed=np.ones(segments, np.int32),
            video_src_index=np.zeros(segments, np.int32),
            random_text=random_text,
            random_text_is_plain=rng.random(len(random_text)) < 0.9,
            **{name: self._tokens(rng, length) for name, length in METADATA_TOKENS.items()},
        )

    def _tokens(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return rng.integers(len(SPECIAL_TOKENS) + 3, self.model.vocab_size, count).astype(np.int32)


@dataclass(frozen=True)
class RandomPretrain(Pretrain):
    """Pretraining on `examples` random examples instead of videos."""

    name = "random_pretrain"
    examples: int = 16

    def prepare(self, run: Path, config: TrainConfig) -> None:
        pass

    def training_set(self, run: Path, config: TrainConfig) -> RandomExamples:  # type: ignore[override]
        return RandomExamples(self.examples, self.data, self.model, seed=config.seed)
