"""The learning-rate schedules of pretraining and finetuning (SPEC 9)."""

from __future__ import annotations

import math
from typing import Literal

FINAL_SCALE = 0.02
"""What the cosine of pretraining ends at."""


def learning_rate_scale(
    step: int, *, num_warmup_steps: int, num_train_steps: int, decay: Literal["cosine", "linear"] = "cosine"
) -> float:
    """Factor on the peak learning rate at `step` (from 0): a linear warm-up from 0, then a decay.

    "cosine" is pretraining's and ends at 0.02; "linear" is finetuning's and ends at 0.
    """
    if step < num_warmup_steps:
        return step / num_warmup_steps
    progress = min((step - num_warmup_steps) / (num_train_steps - num_warmup_steps + 1), 1.0)
    if decay == "linear":
        return 1.0 - progress
    return FINAL_SCALE + (1.0 - FINAL_SCALE) * (1.0 + math.cos(math.pi * progress)) / 2.0
