"""The pretrained weights that zero-shot tasks read."""

from __future__ import annotations

from pathlib import Path

from reserve.checkpoint.official import load_official
from reserve.errors import CheckpointError
from reserve.model.finetuned import FinetunedReserve
from reserve.model.merlot_reserve import MerlotReserve


def load_weights(weights: str, sizes: str | None = None) -> MerlotReserve:
    """A pretrained model in evaluation mode, on the CPU.

    `weights` is a folder, a Hugging Face hub id, or the file of an official checkpoint; only that needs `sizes`, the
    name of a packaged configuration or a YAML file. Raises CheckpointError for weights that cannot be used, also for
    finetuned ones, and ValueError where `sizes` is missing or has no use.
    """
    if not Path(weights).is_file():
        if sizes is not None:
            raise ValueError(f"{weights} has its own config.json; leave out the sizes")
        return MerlotReserve.from_pretrained(weights).eval()
    if sizes is None:
        raise ValueError(
            f"{weights} does not say what model it holds; name its sizes: base_resadapt, large_resadapt, base, large "
            "or a YAML file"
        )
    model = load_official(weights, sizes)
    if isinstance(model, FinetunedReserve):
        raise CheckpointError(f"{weights} is finetuned: it lacks the head and the span encoder of zero-shot tasks")
    return model.eval()
