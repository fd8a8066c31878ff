"""The pretrained weights that zero-shot tasks read, and the vocabulary that belongs to them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from reserve.checkpoint.official import load_official
from reserve.config.load import RUN_CONFIG, read_yaml
from reserve.data.tokenizer import Tokenizer
from reserve.errors import CheckpointError, DamagedCheckpoint
from reserve.model.finetuned import FinetunedReserve
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.run_checkpoints import list_checkpoints
from reserve.model.sharded import holds_weights

logger = logging.getLogger(__name__)


def check_sizes(weights: str | os.PathLike[str], sizes: str | None) -> None:
    """Raises ValueError unless `sizes` are given for the file of an official checkpoint, and for nothing else."""
    if not Path(weights).is_file():
        if sizes is not None:
            raise ValueError(f"{weights} has its own config.json; leave out --sizes")
    elif sizes is None:
        raise ValueError(
            f"{weights} does not say what model it holds; give --sizes base_resadapt, large_resadapt, base, large or a "
            "YAML file"
        )


def load_weights(weights: str | os.PathLike[str], sizes: str | None = None) -> MerlotReserve:
    """A pretrained model in evaluation mode, on the CPU.

    `weights` is a folder, that of a run too, a Hugging Face hub id, or the file of an official checkpoint; only that
    needs `sizes`, the name of a packaged configuration or a YAML file. Of a run it is the newest checkpoint that is
    whole: a warning names those passed over. Raises CheckpointError for weights that cannot be used, also for finetuned
    ones, and ValueError as check_sizes does.
    """
    check_sizes(weights, sizes)
    if sizes is None:
        if Path(weights).is_dir() and not holds_weights(Path(weights)):
            return _load_run(Path(weights)).eval()
        return MerlotReserve.from_pretrained(weights).eval()
    model = load_official(weights, sizes)
    if isinstance(model, FinetunedReserve):
        raise CheckpointError(f"{weights} is finetuned: it lacks the head and the span encoder of zero-shot tasks")
    return model.eval()


def load_vocabulary(weights: str | os.PathLike[str] | None, path: str | os.PathLike[str] | None = None) -> Tokenizer:
    """The vocabulary in `path`; by default that of the run which `weights` are or lie in, else this package's.

    Raises FileNotFoundError and ValueError as `Tokenizer.load` does, and ValueError for a run's config.yaml that cannot
    be read.
    """
    if path is None and weights is not None:
        path = _run_vocabulary(Path(weights))
    return Tokenizer.load(None if path is None else Path(path))


def _load_run(run: Path) -> MerlotReserve:
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        if (run / RUN_CONFIG).exists():
            raise CheckpointError(f"{run} is a run without a checkpoint yet; train it further, or name another")
        raise CheckpointError(
            f"{run} is neither a model's folder nor a run's: it has no config.json and no checkpoints"
        )
    for checkpoint in reversed(checkpoints[1:]):
        try:
            return MerlotReserve.from_pretrained(checkpoint.path)
        except DamagedCheckpoint as error:
            logger.warning("%s; the checkpoint before it is taken", error)
    return MerlotReserve.from_pretrained(checkpoints[0].path)


def _run_vocabulary(weights: Path) -> Path | None:
    """The vocabulary that a run was trained with, if it is not this package's; `weights` is it or one of its
    checkpoints."""
    folder = Path(os.path.abspath(weights))
    for run in (folder, folder.parent.parent):
        if (run / RUN_CONFIG).is_file() and any(folder in (run, each.path) for each in list_checkpoints(run)):
            stored = read_yaml(run / RUN_CONFIG).get("tokenizer")
            return None if stored is None else Path(str(stored))
    return None
