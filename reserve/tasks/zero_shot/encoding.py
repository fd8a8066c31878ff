"""Encodes questions about videos, each distinct frame and sound once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reserve.batch.packing import pack_joint
from reserve.batch.streams import JointStream
from reserve.batch.video_tokens import SUBSEGMENTS, VideoTokens
from reserve.batch.vocabulary import AUDIOSPAN, MASK
from reserve.model.merlot_reserve import MerlotReserve, unit_normalize

IMAGES_AT_ONCE = 32
CLIPS_AT_ONCE = 32
"""Segments' sounds, of three clips each."""
SEQUENCES_AT_ONCE = 16


@dataclass(frozen=True)
class JointQuestion:
    """The joint sequence of one question: its `tokens`, and for each segment the index of its frame and of its sound,
    int [segments], -1 for a sound that is not heard."""

    tokens: VideoTokens
    frames: np.ndarray
    sounds: np.ndarray


def encode_frames(model: MerlotReserve, images: np.ndarray) -> torch.Tensor:
    """Pooled tokens of images float32 [n, height, width, 3]: [n, cells, hidden]."""
    with torch.inference_mode():
        parts = [
            model.vision_encoder(torch.from_numpy(images[i : i + IMAGES_AT_ONCE]).to(model.device)).pooled
            for i in range(0, len(images), IMAGES_AT_ONCE)
        ]
    return torch.cat(parts)


def encode_sounds(model: MerlotReserve, clips: np.ndarray) -> torch.Tensor:
    """Pooled tokens of the clips float32 [n, 3, 60, 65] of segments: [n, 3, tokens, hidden]."""
    return encode_heard(model, clips)[0]


def encode_heard(model: MerlotReserve, clips: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled tokens as `encode_sounds` returns them, and the unit vectors of the same clips: float32 [n, 3, hidden]."""
    with torch.inference_mode():
        parts = [
            model.audio_encoder(torch.from_numpy(clips[i : i + CLIPS_AT_ONCE]).to(model.device).flatten(0, 1))
            for i in range(0, len(clips), CLIPS_AT_ONCE)
        ]
        pooled = torch.cat([part.pooled for part in parts])
        vectors = unit_normalize(torch.cat([part.cls for part in parts]).float())
    return pooled.unflatten(0, (-1, SUBSEGMENTS)), vectors.unflatten(0, (-1, SUBSEGMENTS))


def encode_masks(
    model: MerlotReserve, frames: torch.Tensor, sounds: torch.Tensor | None, questions: Sequence[JointQuestion]
) -> list[torch.Tensor]:
    """The unit vectors at the MASKs of each question, in their order: float32 [masks, hidden].

    `frames` are those of `encode_frames`, `sounds` of `encode_sounds`, None if no question hears any. A question whose
    MASK was cut off has no vector.
    """
    found: list[torch.Tensor] = []
    with torch.inference_mode():
        for first in range(0, len(questions), SEQUENCES_AT_ONCE):
            found += _encode_batch(model, frames, sounds, questions[first : first + SEQUENCES_AT_ONCE])
    return found


def _encode_batch(
    model: MerlotReserve, frames: torch.Tensor, sounds: torch.Tensor | None, questions: Sequence[JointQuestion]
) -> list[torch.Tensor]:
    by_segments: dict[int, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        by_segments[len(question.frames)].append(number)
    # All sequences belong to one example, so that they share its sounds.
    streams = [_stream(str(count), [questions[i] for i in members]) for count, members in by_segments.items()]
    packed = pack_joint(
        streams,
        subsegments=0,
        audio_tokens=model.config.audio_token_length,
        pooled_grid=model.config.pooled_grid,
    )
    audio = frames.new_empty(0, model.config.audio_token_length, frames.shape[-1])
    joint = model.encode_joint(packed.to(model.device), frames, audio if sounds is None else sounds.flatten(0, 1))
    found: list[torch.Tensor] = [joint] * len(questions)
    for (count, members), stream in zip(by_segments.items(), streams, strict=True):
        for row, ids, number in zip(packed.rows[str(count)], stream.ids, members, strict=True):
            at = torch.from_numpy(row[ids == MASK]).to(joint.device)
            found[number] = unit_normalize(model.head(joint[at]).float())
    return found


def _stream(name: str, questions: Sequence[JointQuestion]) -> JointStream:
    ids = np.stack([question.tokens.ids for question in questions])
    own = np.stack([question.tokens.subsegments for question in questions])
    sounds = np.stack([question.sounds for question in questions])
    segment, part = np.divmod(own, SUBSEGMENTS)
    sound = np.take_along_axis(sounds, segment, axis=1)
    heard = ids == AUDIOSPAN
    if (sound[heard] < 0).any():
        raise ValueError("a question has AUDIOSPAN in a segment without sound; only segments that are heard have it")
    return JointStream(
        name=name,
        ids=ids,
        audio_ptr=np.where(heard, SUBSEGMENTS * sound + part, 0),
        segment=segment,
        example=np.zeros(len(questions), np.int64),
        images=np.stack([question.frames for question in questions]),
    )
