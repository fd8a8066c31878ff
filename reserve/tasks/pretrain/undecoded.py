"""Batches whose pictures, and FLAC sound, the training device decodes itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from reserve.batch.movable import Movable
from reserve.config import MAX_PLAYBACK_SPEED, DataConfig, ModelConfig
from reserve.data.dali_pictures import DaliPictures
from reserve.data.encoded_images import EncodedImages
from reserve.data.segment_sound import FULL_SCALE, clip_length, clip_log_mels
from reserve.tasks.pretrain.batch import PretrainBatch


@dataclass(frozen=True)
class SegmentSounds:
    """The sound of S segments that has no spectrograms yet: `samples` a list of int16 [5 s times the playback speed],
    `speeds` int [S], and `starts` int [S, A], the first mel frame of each subsegment."""

    samples: list[np.ndarray]
    speeds: np.ndarray
    starts: np.ndarray


@dataclass
class BatchSound(Movable):
    """The sound of a batch: `samples` int16 [*], segments of one playback speed after those of a lower one, of which
    there are `counts`. `places` int64 [B S]: where each of the batch's segments is among them; `starts` int64 [B S, A]
    as in SegmentSounds and `speeds` float32 [B S], in the batch's order."""

    samples: torch.Tensor
    counts: tuple[int, ...]
    places: torch.Tensor
    starts: torch.Tensor
    speeds: torch.Tensor

    @classmethod
    def of(cls, examples: Sequence[SegmentSounds]) -> BatchSound:
        samples = [each for example in examples for each in example.samples]
        speeds = np.concatenate([example.speeds for example in examples])
        order = np.argsort(speeds, kind="stable")
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return cls(
            torch.from_numpy(np.concatenate([samples[index] for index in order])),
            tuple(int((speeds == speed).sum()) for speed in range(1, MAX_PLAYBACK_SPEED + 1)),
            torch.from_numpy(places),
            torch.from_numpy(np.concatenate([example.starts for example in examples]).astype(np.int64)),
            torch.from_numpy(speeds.astype(np.float32)),
        )

    def audio_clips(self, data: DataConfig, length: int) -> torch.Tensor:
        """The clips of all subsegments, float32 [B S A, length, mels + 1] on the device of the samples: what
        `dataset.audio_clips` cuts from spectrograms of the same sound."""
        log_mels = self._log_mels(data)[self.places]
        frames = self.starts[:, :, None] + torch.arange(length, device=self.starts.device)
        clips = log_mels[torch.arange(len(log_mels), device=log_mels.device)[:, None, None], frames]
        speed = self.speeds[:, None, None, None].expand(*clips.shape[:-1], 1)
        return torch.cat((clips, speed), -1).flatten(0, 1)

    def _log_mels(self, data: DataConfig) -> torch.Tensor:
        """float32 [B S, frames, mels], in the order of the samples and rounded to float16 as stored ones are."""
        found, start = [], 0
        for speed, count in enumerate(self.counts, start=1):
            stop = start + count * clip_length(speed, data.sample_rate)
            if count:
                clips = self.samples[start:stop].view(count, -1).float() / FULL_SCALE
                found.append(clip_log_mels(clips, speed, data))
            start = stop
        return torch.cat(found).half().float()


@dataclass
class UndecodedBatch(Movable):
    """A batch without its `images`, and without its audio clips where it has `sound`."""

    batch: PretrainBatch
    images: EncodedImages
    sound: BatchSound | None


class Finisher:
    """Completes batches on a device: pictures by DALI, spectrograms by our op."""

    def __init__(self, data: DataConfig, model: ModelConfig, device: torch.device) -> None:
        self._data, self._model, self._device = data, model, device
        self._pictures = DaliPictures(model.image_size, device)

    def __call__(self, undecoded: UndecodedBatch) -> PretrainBatch:
        images = self._pictures(undecoded.images.images).view(undecoded.images.shape)
        batch = replace(undecoded.batch, images=images)
        if undecoded.sound is None:
            return batch
        sound = undecoded.sound.to(self._device, non_blocking=True)
        clips = sound.audio_clips(self._data, self._model.audio_seq_length)
        return replace(batch, audio_clips=clips.unflatten(0, (len(images), -1)))
