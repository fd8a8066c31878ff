"""Pretraining on frames and words alone: nothing is heard, and no sound is predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.learning.two_problems import contrastive_losses
from reserve.model.flops import Workload
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.batch import PretrainBatch
from reserve.tasks.pretrain.dataset import Example, PretrainDataset
from reserve.tasks.pretrain.masking import apply_masking, draw_masking_choices
from reserve.tasks.pretrain.masking.alignment import align
from reserve.tasks.pretrain.masking.multimodal import text2audio_stream
from reserve.tasks.pretrain.objective import ContrastPairs, predictions, pretrain_workload
from reserve.tasks.pretrain.task import Pretrain
from reserve.tasks.pretrain.text import MaskedText, UnmaskedText
from reserve.tasks.task import Loss
from reserve_kernels.precision import autocast_off


class SilentDataset(PretrainDataset):
    """Examples whose stream audio2text has words where it would have audio, with the same targets masked."""

    def masked(self, text: UnmaskedText, starts: np.ndarray, rng: np.random.Generator) -> MaskedText:
        choices = draw_masking_choices(text, self.data, self.model, rng)
        masked = apply_masking(text, starts, self.prefixes, replace(choices, show_audio=False), self.data, self.model)
        targets = choices.audio2text_targets
        swapped = replace(
            choices,
            text2audio_targets=targets,
            subsegment_scores=choices.subsegment_scores[::-1],
            token_scores=choices.token_scores[::-1],
        )
        alignment = align(text, starts, self.data, self.model.audio_seq_length)
        stream, spans = text2audio_stream(text.token_ids, alignment, swapped, self.data, self.model)
        first = len(choices.text2audio_targets)
        stream = replace(stream, text_ptr=np.where(stream.text_ptr >= 0, stream.text_ptr + first, -1))
        masked.text_spans[first : first + len(targets)] = spans
        return replace(masked, audio2text=stream)


@dataclass(frozen=True)
class AudioOff(Pretrain):
    """Pretraining without audio: frames are matched with their words, and spans predicted from words and frames.

    Both streams that `Pretrain` has for a video have words here, with the targets that it masks. MASKAUDIO stays in
    them, so that the input is the same; nothing is predicted at it.
    """

    name = "audio-off"
    uses_every_parameter = False  # the audio encoder
    shown_metrics: ClassVar[tuple[str, ...]] = ("loss", "imgs_to_audio", "stuff_to_span")
    dataset_class = SilentDataset

    def collate(self, examples: Sequence[Example]) -> PretrainBatch:
        return replace(super().collate(examples), audio_clips=None)

    def vectors(self, model: MerlotReserve, batch: PretrainBatch) -> dict[str, torch.Tensor]:
        joint, frames, _, spans = model(batch)
        targets = batch.targets
        problems = {
            "imgs_to_audio": ContrastPairs(predictions(model, joint, targets.pool_rows), frames.cls),
            "stuff_to_span": ContrastPairs(predictions(model, joint, targets.span_rows), spans),
        }
        named = {f"{name}.{side}": getattr(pairs, side) for name, pairs in problems.items() for side in ("x", "y")}
        return {**named, "log_scales": model.contrastive_scales.clone()}

    def vectors_loss(self, parts: Sequence[Mapping[str, torch.Tensor]], group: dist.ProcessGroup | None) -> Loss:
        with autocast_off(parts[0]["log_scales"].device):
            losses = contrastive_losses(parts, ("imgs_to_audio", "stuff_to_span"), group)
            total = torch.stack(list(losses.values())).sum()
        return Loss(total, {name: loss.detach() for name, loss in {"loss": total, **losses}.items()})

    def workload(self, batch: PretrainBatch) -> Workload:
        targets = batch.targets
        none = targets.audio_rows[:0]
        return pretrain_workload(
            self.model, replace(batch, targets=replace(targets, audio_rows=none, audio_index=none, audio_extra=none))
        )
