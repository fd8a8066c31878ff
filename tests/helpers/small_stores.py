"""Small data sets of store files with recognisable contents, made without decoding a video.

Segment `s` of video `v` has a frame of one colour with a dark bar towards the right, words that no other segment has,
and a spectrogram whose channel 0 is the segment's number over all videos and whose channel 1 counts frames.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from reserve.config import DataConfig
from reserve.data.collection import PartSet
from reserve.data.images import encode_jpeg
from reserve.data.store import save_segments
from reserve.data.tokenizer import Tokenizer
from reserve.data.types import Segments, VideoMetadata, Word
from reserve.tasks.pretrain.dataset import PretrainDataset
from tests.helpers.tiny import tiny

DATA = DataConfig(
    num_segments=4,
    num_segment_groups=2,
    lang_seq_len=64,
    seq_len=160,
    text_span_budget=4,
    num_text_spans_to_include=6,
)
MODEL = tiny(vocab_size=32768, vit_patch_size=16, audio_patch_size=5)
WORDS_PER_SEGMENT = 9


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load()


@cache
def vocabulary() -> list[str]:
    """Distinct words that are a single token each."""
    words = dict.fromkeys(tokenizer().decode([token]).strip() for token in range(3000, 4500))
    return [word for word in words if word.isascii() and word.isalpha() and len(tokenizer().encode(word)) == 1]


def segment_words(number: int) -> list[str]:
    """The words of segment `number`, counted over all videos."""
    return vocabulary()[number * WORDS_PER_SEGMENT : (number + 1) * WORDS_PER_SEGMENT]


def colour(number: int) -> np.ndarray:
    return np.array([40 + 23 * number % 200, 40 + 71 * number % 200, 40 + 151 * number % 200], dtype=np.uint8)


def frame(number: int) -> np.ndarray:
    image = np.tile(colour(number), (36, 64, 1))
    image[:, 44:52] = 0
    return image


def make_segments(video: int, count: int, *, first_number: int, name: str | None = None) -> Segments:
    numbers = first_number + np.arange(count)
    log_mel = np.zeros((count, DATA.spec_size, DATA.num_mels), np.float16)
    log_mel[..., 0] = numbers[:, None]
    log_mel[..., 1] = np.arange(DATA.spec_size)
    times = np.linspace(0.2, 4.6, WORDS_PER_SEGMENT)
    return Segments(
        video_id=name or f"video-{video}.mp4",
        start=np.arange(count) * 5.0,
        playback_speed=np.ones(count, np.int32),
        frames=[encode_jpeg(frame(number)) for number in numbers],
        log_mel=log_mel,
        words=[
            [Word(text, start, start + 0.2) for text, start in zip(segment_words(number), times, strict=True)]
            for number in numbers
        ],
        metadata=VideoMetadata(f"title {video}", "a description", ("tag",)),
    )


def make_stores(folder: Path, videos: int = 3, segments: int = 8) -> list[Path]:
    """Store files of `videos` videos of `segments` segments each."""
    paths = [folder / f"video-{video}.safetensors" for video in range(videos)]
    for video, path in enumerate(paths):
        save_segments(make_segments(video, segments, first_number=video * segments), path)
    return paths


def make_dataset(stores: list[Path], *, seed: int = 0, training: bool = True, **data: int) -> PretrainDataset:
    from dataclasses import replace

    return PretrainDataset(
        [PartSet.of_stores(stores)], tokenizer(), None, replace(DATA, **data), MODEL, seed=seed, training=training
    )
