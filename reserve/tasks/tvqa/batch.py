"""Questions as a batch, and the loss of answering them with sound and with subtitles (SPEC 10.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from reserve.batch.inputs import ModelInputs
from reserve.batch.packing import pack_joint
from reserve.batch.streams import JointStream
from reserve.batch.vocabulary import AUDIOSPAN
from reserve.config import ModelConfig
from reserve.model.finetuned import FinetunedReserve
from reserve.tasks.choices import mask_rows
from reserve.tasks.stored_sound import SUBSEGMENTS
from reserve.tasks.tvqa.sequences import AUDIO_TOKENS, AnswerSequences
from reserve.tasks.tvqa.times import MAX_SEGMENTS

PASSES = ("audio", "text")


@dataclass(slots=True)
class Example:
    """One question: `images` float32 [7, height, width, 3], `audio_clips` float32 [7, 3, 60, 65], the sequences of both
    passes, and the right answer (0 in the test split)."""

    images: np.ndarray
    audio_clips: np.ndarray
    audio: AnswerSequences
    text: AnswerSequences
    label: int


@dataclass
class AnswerBatch(ModelInputs):
    """Questions for the model: `rows` int64 [passes, questions, answers] of the MASKs, and `labels` int64 [questions].
    Both passes share `images` [questions, 7, height, width, 3] and `audio_clips` [questions, 7, 3, 60, 65]."""

    rows: torch.Tensor
    labels: torch.Tensor


def collate(examples: Sequence[Example], model: ModelConfig) -> AnswerBatch:
    """A batch in which the frames are encoded once for both passes."""
    passes = {"audio": [e.audio for e in examples], "text": [e.text for e in examples]}
    streams = [_stream(name, passes[name]) for name in PASSES]
    packed = pack_joint(
        streams,
        subsegments=MAX_SEGMENTS * SUBSEGMENTS,
        audio_tokens=model.audio_token_length,
        pooled_grid=model.pooled_grid,
    )
    rows = [mask_rows(stream.ids, packed.rows[stream.name]).reshape(len(examples), -1) for stream in streams]
    return AnswerBatch(
        images=torch.from_numpy(np.stack([example.images for example in examples])),
        audio_clips=torch.from_numpy(np.stack([example.audio_clips for example in examples])),
        joint=packed,
        spans=None,
        rows=torch.from_numpy(np.stack(rows)),
        labels=torch.tensor([example.label for example in examples], dtype=torch.int64),
    )


def _stream(name: str, sequences: Sequence[AnswerSequences]) -> JointStream:
    ids = np.concatenate([each.ids for each in sequences])
    answers = len(sequences[0].ids)
    example = np.repeat(np.arange(len(sequences)), answers)
    is_audio = ids == AUDIOSPAN
    # As released, sounds go by their count: each subsegment has as many AUDIOSPANs as vectors.
    nth = np.maximum(np.cumsum(is_audio, axis=1) - 1, 0)
    return JointStream(
        name=name,
        ids=ids,
        audio_ptr=np.where(is_audio, nth // (AUDIO_TOKENS // SUBSEGMENTS) % (MAX_SEGMENTS * SUBSEGMENTS), -1),
        segment=np.concatenate([each.segments for each in sequences]),
        example=example,
        images=example[:, None] * MAX_SEGMENTS + np.arange(MAX_SEGMENTS),
        first_segment=1,
    )


def answer_scores(model: FinetunedReserve, batch: AnswerBatch) -> torch.Tensor:
    """The logits of the answers: float32 [passes, questions, answers]."""
    return model.scores(batch, batch.rows.flatten()).reshape(batch.rows.shape)


@dataclass(frozen=True, slots=True)
class AnswerLoss:
    """The losses of each question in both passes, float32 [passes, questions], and whether the pass alone, and both
    together, choose the right answer, bool [questions] by name."""

    per_question: torch.Tensor
    is_right: dict[str, torch.Tensor]

    @property
    def mean(self) -> torch.Tensor:
        """The mean of each pass over the questions, summed over the passes."""
        return self.per_question.mean(1).sum()

    def metrics(self) -> dict[str, torch.Tensor]:
        """The losses by pass and the accuracies, detached."""
        losses = {f"loss_{name}": loss for name, loss in zip(PASSES, self.per_question.detach().mean(1), strict=True)}
        return losses | {f"accuracy_{name}": right.float().mean() for name, right in self.is_right.items()}


def answer_loss(scores: torch.Tensor, labels: torch.Tensor) -> AnswerLoss:
    """The cross-entropies of `scores` [passes, questions, answers] against `labels` int64 [questions]."""
    losses = torch.stack([F.cross_entropy(each, labels, reduction="none") for each in scores])
    predictions = {name: each.argmax(-1) for name, each in answer_probabilities(scores.detach()).items()}
    return AnswerLoss(losses, {name: prediction == labels for name, prediction in predictions.items()})


def answer_probabilities(scores: torch.Tensor) -> dict[str, torch.Tensor]:
    """The probabilities of the answers by pass, and their mean as "joint": float32 [questions, answers] each."""
    probabilities = scores.float().softmax(-1)
    return dict(zip(PASSES, probabilities, strict=True)) | {"joint": probabilities.mean(0)}
