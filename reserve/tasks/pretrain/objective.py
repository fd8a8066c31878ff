"""The pretraining objective: three contrastive problems over masked-out frames, sounds and text spans (SPEC 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist

from reserve.config import ModelConfig
from reserve.model.flops import Workload, encoding_workload, linear_flops
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.batch import SPAN_SOURCES, PretrainBatch
from reserve_kernels import ContrastiveLoss, contrastive_loss


class ContrastPairs(NamedTuple):
    """Predictions x and targets y of one problem, [pairs, hidden], not normalised; `y_extra` are extra negatives."""

    x: torch.Tensor
    y: torch.Tensor
    y_extra: torch.Tensor | None = None


class PretrainPairs(NamedTuple):
    """The three problems, in the order of `contrastive_scales`."""

    imgs_to_audio: ContrastPairs
    text_to_audio: ContrastPairs
    stuff_to_span: ContrastPairs

    def named(self) -> dict[str, torch.Tensor]:
        """All tensors by name, as `joined` takes them."""
        return {
            f"{problem}.{side}": vectors
            for problem, pairs in self._asdict().items()
            for side, vectors in pairs._asdict().items()
            if vectors is not None
        }

    @classmethod
    def joined(cls, parts: Sequence[Mapping[str, torch.Tensor]]) -> PretrainPairs:
        """The pairs of several micro-batches as those of one batch."""

        def join(name: str) -> torch.Tensor:
            return torch.cat([part[name] for part in parts]) if len(parts) > 1 else parts[0][name]

        sides = {name: [side for side in ContrastPairs._fields if f"{name}.{side}" in parts[0]] for name in cls._fields}
        return cls(*(ContrastPairs(*(join(f"{name}.{side}") for side in found)) for name, found in sides.items()))


@dataclass
class PretrainLoss:
    """Scalar losses: `total` is the sum of `parts`; `by_source` is the span loss of each stream, for logging.

    `scales` are the inverse temperatures of the parts, not bounded as in the loss.
    """

    total: torch.Tensor
    parts: dict[str, torch.Tensor]
    by_source: dict[str, torch.Tensor]
    scales: dict[str, torch.Tensor]

    def metrics(self) -> dict[str, torch.Tensor]:
        """All losses and scales by name, detached."""
        named = {"loss": self.total, **self.parts} | {f"span_{k}": v for k, v in self.by_source.items()}
        named |= {f"scale_{k}": v for k, v in self.scales.items()}
        return {k: v.detach() for k, v in named.items()}


def pretrain_pairs(model: MerlotReserve, batch: PretrainBatch) -> PretrainPairs:
    """Runs the model on a batch and pairs each prediction with its target."""
    joint, frames, sounds, spans = model(batch)
    targets = batch.targets

    return PretrainPairs(
        imgs_to_audio=ContrastPairs(predictions(model, joint, targets.pool_rows), frames.cls),
        text_to_audio=ContrastPairs(
            predictions(model, joint, targets.audio_rows),
            sounds.cls[targets.audio_index],
            sounds.cls[targets.audio_extra],
        ),
        stuff_to_span=ContrastPairs(predictions(model, joint, targets.span_rows), spans),
    )


def predictions(model: MerlotReserve, joint: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The head's output [rows, hidden] at `rows` int64 of the joint encoder's [tokens, hidden]; zeros at rows of -1."""
    # The head runs only on the rows that make predictions.
    return torch.where((rows >= 0)[:, None], model.head(joint[rows.clamp_min(0)]), 0.0)


def pretrain_loss(
    pairs: PretrainPairs,
    log_scales: torch.Tensor,
    span_source: torch.Tensor,
    *,
    group: dist.ProcessGroup | None = None,
) -> PretrainLoss:
    """The loss of this device's pairs against the candidates of all devices of `group` (SPEC 8).

    `log_scales` [3] float32; `span_source` int [spans], an index into SPAN_SOURCES for each pair of stuff_to_span.
    """
    losses: dict[str, ContrastiveLoss] = {}
    for (name, problem), log_scale in zip(pairs._asdict().items(), log_scales, strict=True):
        losses[name] = contrastive_loss(problem.x, problem.y, log_scale, y_extra=problem.y_extra, group=group)
    span = losses["stuff_to_span"]
    both = (span.x_to_y + span.y_to_x) / 2
    by_source = {}
    for index, source in enumerate(SPAN_SOURCES):
        chosen = (span_source == index).to(both.dtype)
        by_source[source] = (both * chosen).sum() / (chosen.sum() + 1e-5)
    parts = {name: loss.loss for name, loss in losses.items()}
    scales = dict(zip(parts, log_scales.detach().exp(), strict=True))
    return PretrainLoss(torch.stack(list(parts.values())).sum(), parts, by_source, scales)


def pretrain_workload(config: ModelConfig, batch: PretrainBatch) -> Workload:
    """The work of a training step on one device's batch, on the CPU. Candidates of other devices do not count."""
    targets, hidden = batch.targets, config.hidden_size
    problems = [
        (len(targets.pool_rows), len(targets.pool_rows)),
        (len(targets.audio_rows), len(targets.audio_index) + len(targets.audio_extra)),
        (len(targets.span_rows), len(targets.span_index)),
    ]
    head = linear_flops(sum(pairs for pairs, _ in problems), hidden, hidden)
    # Logits, and the gradients of both sides.
    logits = sum(6 * pairs * candidates * hidden for pairs, candidates in problems)
    return encoding_workload(config, batch) + Workload(0, head + logits)
