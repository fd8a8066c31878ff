"""Which checkpoints of a run are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reserve.errors import CheckpointError
from reserve.model.manifest import has_manifest, read_manifest
from reserve.train.storage import remove_checkpoint


@dataclass(frozen=True)
class Retention:
    """Keeps the `latest` checkpoints, those at multiples of `every` steps, and the `best` by mean training loss.

    0 keeps none for `every` and `best`. Of equal losses the later is better; a checkpoint without a finite loss is
    never among the best.
    """

    latest: int
    every: int = 0
    best: int = 0

    def kept(self, losses: Sequence[tuple[int, float | None]]) -> set[int]:
        """The steps to keep of checkpoints given as (step, mean loss)."""
        steps = sorted(step for step, _ in losses)
        kept = set(steps[-self.latest :])
        if self.every:
            kept |= {step for step in steps if step % self.every == 0}
        ranked = sorted((loss, -step) for step, loss in losses if loss is not None)
        return kept | {-step for _, step in ranked[: self.best]}

    def apply(self, checkpoints: Sequence[tuple[int, Path]]) -> None:
        """Removes the checkpoints, given as (step, folder), that are not kept."""
        kept = self.kept([(step, _mean_loss(folder) if self.best else None) for step, folder in checkpoints])
        for step, folder in checkpoints:
            if step not in kept:
                remove_checkpoint(folder)


def _mean_loss(folder: Path) -> float | None:
    try:
        return read_manifest(folder).mean_loss if has_manifest(folder) else None
    except CheckpointError:  # Damaged: of no use as the best.
        return None
