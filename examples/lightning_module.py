"""The ops in a Lightning module: the model of sounds_and_words.py, our loss and our optimiser.

    python examples/lightning_module.py --help

It needs `pip install lightning`.
"""

from __future__ import annotations

import argparse
from typing import Any

import lightning
import torch
from sounds_and_words import Matcher, accuracy, make_batch

from reserve_kernels import BF16AdamW, contrastive_loss


class MatcherModule(lightning.LightningModule):
    """Trains a Matcher; `losses` are those of the steps so far."""

    def __init__(self, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.matcher = Matcher()
        self.learning_rate = learning_rate
        self.losses: list[float] = []

    def training_step(self, batch: tuple[list[torch.Tensor], list[tuple[str, str, str]]], index: int) -> torch.Tensor:
        clips, descriptions = batch
        sounds, texts = self.matcher.encode_sounds(clips), self.matcher.encode_descriptions(descriptions)
        loss = contrastive_loss(sounds, texts, self.matcher.log_scale).loss
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = BF16AdamW(self.parameters(), self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Batches(torch.utils.data.IterableDataset):
    """Batches whose descriptions differ, made when they are asked for."""

    def __init__(self, batch_size: int, seed: int) -> None:
        self.batch_size, self.seed = batch_size, seed

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            yield make_batch(self.batch_size, generator)


def train(steps: int, batch_size: int, seed: int = 0) -> tuple[list[float], float]:
    """The loss of each step, and the accuracy on new clips at the end."""
    torch.manual_seed(seed)
    module = MatcherModule()
    trainer = lightning.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(Batches(batch_size, seed), batch_size=None))
    return module.losses, accuracy(module.matcher, 4, torch.Generator().manual_seed(10**6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=24)
    options = parser.parse_args()
    _, right = train(options.steps, options.batch_size)
    print(f"new clips matched with the right description: {right:.0%}")


if __name__ == "__main__":
    main()
