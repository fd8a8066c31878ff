"""Converts weights between the official format and pretrained folders, which include checkpoints of runs."""

from __future__ import annotations

import os
from pathlib import Path

from reserve.checkpoint.official import model_from_official, read_official, save_official
from reserve.config import ModelConfig
from reserve.config.load import config_file
from reserve.config.official import load_model_config
from reserve.errors import CheckpointError
from reserve.model.finetuned import FinetunedReserve
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.pretrained import pretrained_class, pretrained_step
from reserve.model.sharded import WEIGHTS, holds_weights

OFFICIAL_SUFFIX = ".msgpack"
WEIGHTS_SUFFIX = Path(WEIGHTS).suffix


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], config: str | os.PathLike[str] | None = None
) -> None:
    """Reads the weights in `source` and writes them to `target`, which must not exist yet.

    `source` is an official checkpoint (any file) or a pretrained folder; a run's `checkpoints/step_…` is one. `target`
    is written in the official format if its name ends in `.msgpack`, and as a pretrained folder otherwise. The official
    format lacks the configuration: only for it, `config` names a preset ("base", "large", …) or a YAML file of this
    project or of the reference. Raises CheckpointError or ValueError for an invalid argument or file, and OSError if
    `target` cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise ValueError(f"{target} already exists")
    if target.suffix == WEIGHTS_SUFFIX:
        raise ValueError(f"{target}: weights are stored in a folder together with config.json; name a folder")
    if source.suffix == WEIGHTS_SUFFIX and source.is_file():
        raise CheckpointError(
            f"{source} does not say what model it holds; name the folder that holds it and its config.json"
        )
    if source.is_dir():
        if config is not None:
            raise ValueError(f"{source} has its own config.json; leave out --config")
        _check_folder(source)
        kind = FinetunedReserve if pretrained_class(source) == FinetunedReserve.__name__ else MerlotReserve
        model, step = kind.from_pretrained(source), pretrained_step(source)
    else:
        arrays, step = read_official(source)
        model = model_from_official(arrays, _model_config(config))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == OFFICIAL_SUFFIX:
        save_official(model, target, step=step)
    else:
        model.save_pretrained(target, step=step)


def _check_folder(folder: Path) -> None:
    if not holds_weights(folder) and (folder / "checkpoints").is_dir():
        names = sorted(path.name for path in (folder / "checkpoints").iterdir() if holds_weights(path))
        raise CheckpointError(f"{folder} is a run; name one of its checkpoints ({', '.join(names) or 'it has none'})")


def _model_config(config: str | os.PathLike[str] | None) -> ModelConfig:
    if config is None:
        raise ValueError(
            "an official checkpoint does not say what model it holds; give --config base, large or a YAML file"
        )
    try:
        return load_model_config(config_file(config))
    except OSError as error:
        raise ValueError(f"cannot read the configuration {config}: {error.strerror}") from error
