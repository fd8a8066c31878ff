"""Checkpoints in the layout of older versions, which numbered the optimiser's parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from reserve.model.pretrained import Pretrained


def write_old_checkpoint(
    folder: Path, model: Pretrained, optimizer: torch.optim.Optimizer, step: int, **place: Any
) -> None:
    """Writes model.safetensors, config.json and trainer.pt; `place` is what versions wrote that counted examples."""
    model.save_pretrained(folder, step=step)
    state = {"step": step, "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    torch.save(state | place, folder / "trainer.pt")
