"""Prepared videos as training examples: decoded, cropped, tokenised and masked, a function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from reserve.batch.vocabulary import PAD, SPECIAL_TOKENS
from reserve.config import DataConfig, ModelConfig
from reserve.data.collection import Collection, PartSet
from reserve.data.encoded_images import EncodedImage, EncodedImages
from reserve.data.images import (
    decode_picture,
    inference_image,
    jpeg_size,
    plan_inference_image,
    plan_training_image,
    training_image,
)
from reserve.data.order import SetShare
from reserve.data.segment_sound import flac_samples
from reserve.data.sources.random_text import TextSource, TranscriptTextSource
from reserve.data.tokenizer import Tokenizer
from reserve.data.types import Segments
from reserve.tasks.pretrain.batch import (
    BatchChoices,
    PretrainBatch,
    keep_spans,
    pack_batch,
    span_streams,
    split_sources,
)
from reserve.tasks.pretrain.example_plan import ExamplePlan
from reserve.tasks.pretrain.masking import draw_subsegment_starts, inference_subsegment_starts, mask_text
from reserve.tasks.pretrain.planned_parts import PlannedParts
from reserve.tasks.pretrain.text import MaskedText, MetadataPrefixes, UnmaskedText
from reserve.tasks.pretrain.undecoded import BatchSound, SegmentSounds, UndecodedBatch

if TYPE_CHECKING:
    from PIL import Image

MAX_RANDOM_TEXT = 1280
"""Length of the random text in the reference's records, in tokens."""


@dataclass
class Example:
    """One example, ready to be packed into a batch.

    `images` uint8 [S, height, width, 3]; `audio_clips` float32 [S * A, frames, mels + 1], the last channel the playback
    speed; `text2audio_source`, `audio2text_source` int [G, S / G], the video each segment counts as; `span_noise` float
    [spans], Gumbel noise for choosing the spans that are predicted. Where the training device decodes, `images` are
    empty and `encoded` has S JPEG files; `audio_clips` are empty and `sound` is there if the sound itself is stored.
    """

    images: np.ndarray
    audio_clips: np.ndarray
    text: MaskedText
    text2audio_source: np.ndarray
    audio2text_source: np.ndarray
    span_noise: np.ndarray
    encoded: Sequence[EncodedImage] = ()
    sound: SegmentSounds | None = None


class PretrainDataset(Dataset[Example]):
    """Examples assembled from sets of prepared videos, indexed by (epoch, index).

    The examples of each set come after those of the set before it. `text_source` is where random text comes from, None
    for the other videos of the example's part, or where they say nothing of the set's next parts.

    Without `training`, frames are not cropped at random, audio windows lie where inference puts them, and no group is
    split into two videos; masking is still random. Without `decoded`, pictures are left encoded.
    """

    def __init__(
        self,
        sets: Sequence[PartSet],
        tokenizer: Tokenizer,
        text_source: TextSource | None,
        data: DataConfig,
        model: ModelConfig,
        *,
        seed: int = 0,
        training: bool = True,
        decoded: bool = True,
    ) -> None:
        if tokenizer.vocab_size > model.vocab_size:
            raise ValueError(
                f"model.vocab_size must be at least the tokenizer's {tokenizer.vocab_size}; got {model.vocab_size}"
            )
        self.tokenizer, self.text_source = tokenizer, text_source
        self.data, self.model = data, model
        self.seed, self.training, self.decoded = seed, training, decoded
        self.plans = PlannedParts(sets, data.num_segments, seed=seed)
        self.prefixes = MetadataPrefixes(
            *(np.array(tokenizer.encode(f"{name}:")) for name in ("title", "description", "tags"))
        )

    def __len__(self) -> int:
        return len(self.plans)

    @property
    def shares(self) -> tuple[SetShare, ...]:
        """The sets of the mixture that it is trained on."""
        return self.plans.shares

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        collection, plan = self.plans[index]
        runs = [collection.load(run.video, run.start, run.stop) for run in plan.ranges]
        speeds = np.concatenate([run.playback_speed for run in runs])
        spoken = TranscriptTextSource(collection, partial(self.plans.others, index))
        text = self.unmasked_text(plan, runs, self.text_source or spoken, rng)
        if self.training:
            starts = draw_subsegment_starts(rng, self.data, self.model.audio_seq_length)
        else:
            starts = inference_subsegment_starts(self.data, self.model.audio_seq_length)
        masked = self.masked(text, starts, rng)
        source = text.video_src_index.reshape(self.data.num_segment_groups, -1).astype(np.int64)
        images: list[np.ndarray] = []
        encoded: list[EncodedImage] = []
        for run, segments in zip(plan.ranges, runs, strict=True):
            with collection.naming(run.video):
                if self.decoded:
                    images += [self._image(decode_picture(jpeg), rng) for jpeg in segments.frames]
                else:
                    encoded += [self._encoded(segments.video_id, jpeg, rng) for jpeg in segments.frames]
        log_mel = np.concatenate([run.log_mel for run in runs]).astype(np.float32)
        sound = None if log_mel.shape[1] else self._sound(collection, plan, runs, starts)
        nothing = np.empty(0)
        return Example(
            images=np.stack(images) if self.decoded else nothing,
            audio_clips=nothing if sound else audio_clips(log_mel, speeds, starts, self.model.audio_seq_length),
            text=masked,
            text2audio_source=split_sources(source, rng) if self.training else source,
            audio2text_source=split_sources(source, rng) if self.training else source,
            span_noise=rng.gumbel(size=self.data.num_text_spans),
            encoded=encoded,
            sound=sound,
        )

    def masked(self, text: UnmaskedText, starts: np.ndarray, rng: np.random.Generator) -> MaskedText:
        """The streams of an example and what they hide; another objective may mask in another way.

        `starts` int [S, A]: the first mel frame of each audio subsegment. All randomness comes from `rng`.
        """
        return mask_text(text, starts, self.prefixes, self.data, self.model, rng)

    def unmasked_text(
        self, plan: ExamplePlan, runs: Sequence[Segments], text_source: TextSource, rng: np.random.Generator
    ) -> UnmaskedText:
        """The words, metadata and random text of an example as tokens."""
        words = [segment for run in runs for segment in run.words]
        spoken = [
            (token, word.start, word.end, index)
            for index, segment in enumerate(words)
            for word, tokens in zip(segment, self.tokenizer.encode_words([w.text for w in segment]), strict=True)
            for token in tokens
            if token >= len(SPECIAL_TOKENS)
        ]
        columns = np.array(spoken, dtype=np.float64).reshape(-1, 4).T
        metadata = runs[0].metadata
        random_text = self._encode(text_source.draw(rng, plan.segments))[:MAX_RANDOM_TEXT]
        return UnmaskedText(
            token_ids=columns[0].astype(np.int32),
            token_start=columns[1].astype(np.float32),
            token_end=columns[2].astype(np.float32),
            token_segment=columns[3].astype(np.int32),
            playback_speed=np.concatenate([run.playback_speed for run in runs]).astype(np.int32),
            video_src_index=plan.video_src_index,
            title=self._encode(metadata.title),
            description=self._encode(metadata.description),
            tags=self._encode(", ".join(metadata.tags)),
            random_text=random_text,
            random_text_is_plain=self.tokenizer.is_plain(random_text),
        )

    def _encode(self, text: str) -> np.ndarray:
        return np.array(self.tokenizer.encode_plain(text), dtype=np.int32)

    def _encoded(self, video_id: str, jpeg: bytes, rng: np.random.Generator) -> EncodedImage:
        height, width = jpeg_size(jpeg)
        if self.training:
            scales = (self.data.random_scale_min, self.data.random_scale_max)
            plan = plan_training_image(height, width, self.model.image_size, rng, scales)
        else:
            plan = plan_inference_image(height, width, self.model.image_size)
        return EncodedImage(video_id, jpeg, (height, width), plan)

    def _sound(
        self, collection: Collection, plan: ExamplePlan, runs: Sequence[Segments], starts: np.ndarray
    ) -> SegmentSounds:
        samples: list[np.ndarray] = []
        for run, segments in zip(plan.ranges, runs, strict=True):
            with collection.naming(run.video):
                samples += [
                    flac_samples(file, speed, self.data.sample_rate)
                    for file, speed in zip(segments.sound, segments.playback_speed.tolist(), strict=True)
                ]
        return SegmentSounds(samples, np.concatenate([run.playback_speed for run in runs]), starts)

    def _image(self, frame: np.ndarray | Image.Image, rng: np.random.Generator) -> np.ndarray:
        if not self.training:
            return inference_image(frame, self.model.image_size)
        scales = (self.data.random_scale_min, self.data.random_scale_max)
        return training_image(frame, self.model.image_size, rng, scales)


def audio_clips(log_mel: np.ndarray, speeds: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Cuts segments' log-mels float32 [S, frames, mels] into subsegments of `length` frames from `starts` [S, A].

    Returns float32 [S * A, length, mels + 1]; the last channel is the playback speed [S] as a constant (SPEC 1).
    """
    frames = starts[:, :, None] + np.arange(length)
    clips = log_mel[np.arange(len(log_mel))[:, None, None], frames]
    speed = np.broadcast_to(speeds.astype(np.float32)[:, None, None, None], (*clips.shape[:-1], 1))
    return np.concatenate((clips, speed), axis=-1).reshape(-1, length, log_mel.shape[-1] + 1)


def as_tensors(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [B, S, height, width, 3] and audio clips [B, S * A, frames, channels] of a batch."""
    images = torch.from_numpy(np.stack([example.images for example in examples]))
    clips = torch.from_numpy(np.stack([example.audio_clips for example in examples]))
    return images, clips


def collate_undecoded(examples: Sequence[Example], data: DataConfig, model: ModelConfig) -> UndecodedBatch:
    """Packs examples whose pictures are left encoded. Their sound is left as it is where that of all examples is."""
    encoded = [image for example in examples for image in example.encoded]
    sounds = [example.sound for example in examples if example.sound is not None]
    later, nothing = len(sounds) == len(examples), torch.empty(0)
    clips = nothing if later else torch.from_numpy(np.stack([_clips(example, data, model) for example in examples]))
    batch = _packed(examples, nothing, clips, data, model, keep_every_span=False)
    images = EncodedImages(encoded, data.num_segments, model.image_size)
    return UndecodedBatch(batch, images, BatchSound.of(sounds) if later else None)


def _clips(example: Example, data: DataConfig, model: ModelConfig) -> np.ndarray:
    if example.sound is None:
        return example.audio_clips
    return BatchSound.of([example.sound]).audio_clips(data, model.audio_seq_length).numpy()


def collate(
    examples: Sequence[Example], data: DataConfig, model: ModelConfig, *, keep_every_span: bool = False
) -> PretrainBatch:
    """Packs examples into a batch. `keep_every_span` predicts every span that can be predicted, for evaluation."""
    return _packed(examples, *as_tensors(examples), data, model, keep_every_span=keep_every_span)


def _packed(
    examples: Sequence[Example],
    images: torch.Tensor,
    clips: torch.Tensor,
    data: DataConfig,
    model: ModelConfig,
    *,
    keep_every_span: bool,
) -> PretrainBatch:
    texts = [example.text for example in examples]
    spans = np.stack([text.text_spans for text in texts])
    noise = np.stack([example.span_noise for example in examples])
    kept = keep_spans(span_streams(texts), spans, noise, None if keep_every_span else data.num_text_spans_to_include)
    # Spans of one length side by side: the span encoder then runs each length as one batch, without copies.
    kept = kept[np.argsort((spans.reshape(-1, spans.shape[-1])[kept] != PAD).sum(-1), kind="stable")]
    choices = BatchChoices(
        text2audio_source=np.stack([example.text2audio_source for example in examples]),
        audio2text_source=np.stack([example.audio2text_source for example in examples]),
        kept_spans=kept,
    )
    return pack_batch(images, clips, texts, choices, data, model)


def evaluation_batches(dataset: PretrainDataset, batch_size: int, epoch: int = 0) -> Iterator[PretrainBatch]:
    """Every example of the dataset once, in order, masked as in `epoch`, with every span that can be predicted."""
    for start in range(0, len(dataset), batch_size):
        indices = range(start, min(start + batch_size, len(dataset)))
        yield collate([dataset[epoch, index] for index in indices], dataset.data, dataset.model, keep_every_span=True)
