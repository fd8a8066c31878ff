"""Pretraining in which text is predicted token by token, by a softmax over the vocabulary, as in BERT and MERLOT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from benchmarks.learning.token_masks import expand_masks
from benchmarks.learning.two_problems import contrastive_losses
from reserve.batch.vocabulary import PAD
from reserve.model.flops import Workload, linear_flops
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.batch import BatchChoices, PretrainBatch, keep_spans, pack_batch, span_sources, span_streams
from reserve.tasks.pretrain.dataset import Example, as_tensors
from reserve.tasks.pretrain.objective import pretrain_pairs, pretrain_workload
from reserve.tasks.pretrain.task import Pretrain
from reserve.tasks.task import Loss
from reserve_kernels.precision import autocast_off


class MaskLmReserve(MerlotReserve):
    """MERLOT Reserve that also scores the vocabulary at a MASK: the token embedding and a bias after the head."""

    only_parameters = True

    def _make_parts(self, config: Any) -> None:
        super()._make_parts(config)
        self.token_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.token_bias)

    def token_logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [n, vocabulary] of the head's outputs [n, hidden]."""
        return F.linear(x, self.token_embedding.weight.to(x.dtype), self.token_bias.to(x.dtype))


@dataclass
class MaskLmBatch(PretrainBatch):
    """A batch without spans to encode: `token_ids` int64 [masks] are what the rows `targets.span_rows` predict."""

    token_ids: torch.Tensor


@dataclass(frozen=True)
class MaskLm(Pretrain):
    """Pretraining with the same inputs, in which each token of a span has its own MASK and is predicted on its own.

    Frames and sounds are matched as in `Pretrain`. A span that `Pretrain` would choose is predicted as a whole.
    """

    name = "mask-lm"
    uses_every_parameter = False  # the span encoder
    shown_metrics: ClassVar[tuple[str, ...]] = ("loss", "imgs_to_audio", "text_to_audio", "mask_lm")

    def build_model(self) -> MaskLmReserve:
        return MaskLmReserve(self.model)

    def collate(self, examples: Sequence[Example]) -> MaskLmBatch:
        texts = [example.text for example in examples]
        spans = np.stack([text.text_spans for text in texts])
        noise = np.stack([example.span_noise for example in examples])
        streams = span_streams(texts)
        kept = keep_spans(streams, spans, noise, self.data.num_text_spans_to_include)
        kept = kept[span_sources(streams, spans.shape[1]).ravel()[kept] >= 0]
        longest = spans.shape[-1]
        tokens = spans.reshape(-1, longest)[kept]
        masks = (kept[:, None] * longest + np.arange(longest))[tokens != PAD]
        choices = BatchChoices(
            text2audio_source=np.stack([example.text2audio_source for example in examples]),
            audio2text_source=np.stack([example.audio2text_source for example in examples]),
            kept_spans=masks,
        )
        packed = pack_batch(*as_tensors(examples), [expand_masks(t) for t in texts], choices, self.data, self.model)
        inputs = {field.name: getattr(packed, field.name) for field in fields(packed)}
        return MaskLmBatch(**inputs | {"spans": None}, token_ids=torch.from_numpy(tokens[tokens != PAD]).long())

    def vectors(self, model: MaskLmReserve, batch: MaskLmBatch) -> dict[str, torch.Tensor]:  # type: ignore[override]
        pairs = pretrain_pairs(model, batch)
        masked = pairs.stuff_to_span.x
        losses = F.cross_entropy(model.token_logits(masked).float(), batch.token_ids, reduction="none")
        matched = {name: vectors for name, vectors in pairs.named().items() if not name.startswith("stuff_to_span")}
        return {**matched, "log_scales": model.contrastive_scales.clone(), "token_losses": losses}

    def vectors_loss(self, parts: Sequence[Mapping[str, torch.Tensor]], group: dist.ProcessGroup | None) -> Loss:
        tokens = torch.cat([part["token_losses"] for part in parts])
        with autocast_off(tokens.device):
            losses = contrastive_losses(parts, ("imgs_to_audio", "text_to_audio"), group)
            losses["mask_lm"] = tokens.mean()
            total = torch.stack(list(losses.values())).sum()
        return Loss(total, {name: loss.detach() for name, loss in {"loss": total, **losses}.items()})

    def workload(self, batch: MaskLmBatch) -> Workload:  # type: ignore[override]
        # The spans' contrastive logits, which this counts, stand for nothing here.
        targets = batch.targets
        none = replace(targets, span_rows=targets.span_rows[:0], span_index=targets.span_index[:0])
        hidden, masks = self.model.hidden_size, len(batch.token_ids)
        own = linear_flops(masks, hidden, hidden) + linear_flops(masks, hidden, self.model.vocab_size)
        return pretrain_workload(self.model, replace(batch, targets=none)) + Workload(0, own)
