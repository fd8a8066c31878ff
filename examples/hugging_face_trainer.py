"""The ops under Hugging Face's Trainer: the model of sounds_and_words.py, our loss and our optimiser.

    python examples/hugging_face_trainer.py --help

It needs `pip install transformers accelerate`. The model returns its loss, the data set makes clips when they are asked
for, and the optimiser is passed to the trainer, which adds its schedule, logs and checkpoints.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from sounds_and_words import Matcher, accuracy, make_batch
from transformers import Trainer, TrainingArguments

from reserve_kernels import BF16AdamW, contrastive_loss


class MatcherForTrainer(Matcher):
    """A batch of the data set -> its loss, as the trainer wants it."""

    def forward(self, clips: list[torch.Tensor], descriptions: list[tuple[str, str, str]]) -> dict[str, torch.Tensor]:
        sounds, texts = self.encode_sounds(clips), self.encode_descriptions(descriptions)
        return {"loss": contrastive_loss(sounds, texts, self.log_scale).loss}


class Batches(torch.utils.data.Dataset):
    """Element i is a whole batch, the same each time: what is matched within it must have different descriptions."""

    def __init__(self, steps: int, batch_size: int) -> None:
        self.steps, self.batch_size = steps, batch_size

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, i: int) -> dict[str, Any]:
        clips, descriptions = make_batch(self.batch_size, torch.Generator().manual_seed(i))
        return {"clips": clips, "descriptions": descriptions}


def train(steps: int, batch_size: int, out: str, seed: int = 0) -> tuple[list[float], float]:
    """The losses that the trainer logged, and the accuracy on new clips at the end."""
    torch.manual_seed(seed)
    model = MatcherForTrainer()
    arguments = TrainingArguments(
        output_dir=out,
        max_steps=steps,
        per_device_train_batch_size=1,
        lr_scheduler_type="cosine",
        logging_steps=max(1, steps // 10),
        save_strategy="no",
        report_to="none",
        # The clips reach forward under their own names.
        remove_unused_columns=False,
        disable_tqdm=True,
        seed=seed,
    )
    optimizer = BF16AdamW(model.parameters(), 1e-3)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Batches(steps, batch_size),
        data_collator=lambda elements: elements[0],
        optimizers=(optimizer, None),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return [float(loss) for loss in losses], accuracy(model, 4, torch.Generator().manual_seed(10**6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=24)
    parser.add_argument("--out", default="hugging_face_trainer", help="the trainer's folder")
    options = parser.parse_args()
    _, right = train(options.steps, options.batch_size, options.out)
    print(f"new clips matched with the right description: {right:.0%}")


if __name__ == "__main__":
    main()
