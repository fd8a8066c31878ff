"""The zero-shot read-out: unit vectors of MASKs against unit vectors of options (SPEC 10.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from reserve.batch.vocabulary import PAD
from reserve.data.tokenizer import Tokenizer
from reserve.model.merlot_reserve import MerlotReserve
from reserve_kernels.contrastive.reference import MAX_LOG_SCALE

SCALE = 100.0
"""What dot products are multiplied by to be logits."""
SPANS = 2
"""Place of the text spans' temperature in `contrastive_scales`."""
_BATCH = 512
# Options encoded at a time.


def option_ids(tokenizer: Tokenizer, options: Sequence[str], length: int = 15) -> np.ndarray:
    """Token ids of options, cut or padded to `length`: int32 [options, length]."""
    ids = np.full((len(options), length), PAD, dtype=np.int32)
    for row, option in zip(ids, options, strict=True):
        encoded = tokenizer.encode(option)[:length]
        row[: len(encoded)] = encoded
    return ids


def encode_options(model: MerlotReserve, ids: np.ndarray) -> torch.Tensor:
    """Unit vectors of options int [options, length]: float32 [options, hidden] on the model's device."""
    with torch.inference_mode():
        parts = [model.embed_text_spans(ids[first : first + _BATCH]).float() for first in range(0, len(ids), _BATCH)]
    return torch.cat(parts) if parts else torch.zeros(0, model.config.hidden_size, device=model.device)


def option_logits(masks: torch.Tensor, options: torch.Tensor, scale: float = SCALE) -> torch.Tensor:
    """Logits of options at each MASK: unit vectors [masks, hidden] and [options, hidden] -> float32 [masks, options].

    The prediction is the argmax of the first MASK's row.
    """
    with torch.autocast(masks.device.type, enabled=False):  # logits of 100 to three digits would tie
        return scale * (masks.float() @ options.float().T)


def trained_scale(model: MerlotReserve) -> float:
    """The inverse temperature that the model was trained with to pick text spans (SPEC 8), at most 100."""
    return math.exp(min(model.contrastive_scales[SPANS].item(), MAX_LOG_SCALE))


def ranked(logits: np.ndarray, count: int | None = None) -> np.ndarray:
    """Indices of the `count` best of `logits` [..., options], best first; equal ones in their order."""
    return np.argsort(-logits, axis=-1, kind="stable")[..., :count]
