"""The pretrained weights that zero-shot tasks read."""

from __future__ import annotations

from pathlib import Path

from reserve.checkpoint.official import load_official
from reserve.errors import CheckpointError
from reserve.model.finetuned import FinetunedReserve
from reserve.model.merlot_reserve import MerlotReserve


def check_sizes(weights: str, sizes: str | None) -> None:
    """Raises ValueError unless `sizes` are given for the file of an official checkpoint, and for nothing else."""
    if not Path(weights).is_file():
        if sizes is not None:
            raise ValueError(f"{weights} has its own config.json; leave out --sizes")
    elif sizes is None:
        raise ValueError(
            f"{weights} does not say what model it holds; give --sizes base_resadapt, large_resadapt, base, large or a "
            "YAML file"
        )


def load_weights(weights: str, sizes: str | None = None) -> MerlotReserve:
    """A pretrained model in evaluation mode, on the CPU.

    `weights` is a folder, a Hugging Face hub id, or the file of an official checkpoint; only that needs `sizes`, the
    name of a packaged configuration or a YAML file. Raises CheckpointError for weights that cannot be used, also for
    finetuned ones, and ValueError as check_sizes does.
    """
    check_sizes(weights, sizes)
    if sizes is None:
        return MerlotReserve.from_pretrained(weights).eval()
    model = load_official(weights, sizes)
    if isinstance(model, FinetunedReserve):
        raise CheckpointError(f"{weights} is finetuned: it lacks the head and the span encoder of zero-shot tasks")
    return model.eval()
