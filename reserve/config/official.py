"""Reads the reference's configuration files: sections data, model, optimizer and device (SPEC 10)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from reserve.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from reserve.config.load import build_section, convert_value, read_yaml

# Settings of the reference that have a single supported value.
_FIXED: dict[str, dict[str, Any]] = {
    "data": {"num_text2audio_seqs": 1, "num_audio2text_seqs": 1, "num_text_seqs": 1, "num_text_seqs_in_record": 1},
    "optimizer": {"adafactor": False, "use_bfloat16_weights": False},
}
# Settings of the reference's data files, and settings that belong to other sections.
_LEFT_OUT = {"data": {"train_fns", "num_train_files"}, "model": {"use_bfloat16"}}


def load_official_config(path: str | os.PathLike[str]) -> Config:
    """Converts the reference's YAML to a Config; `device.batch_size` and `model.use_bfloat16` go to the section train.

    With `use_bfloat16` the precision is auto: bfloat16 on a GPU and on a CPU with instructions for it.
    Other settings of the section device (paths of data and outputs, TPUs) are ignored. Raises ValueError naming the
    file and the setting if one is unknown, of a wrong type or not supported, and OSError if the file cannot be read.
    """
    settings = read_yaml(path)
    known = ("data", "model", "optimizer", "device")
    for name in settings:
        if name not in known:
            raise ValueError(f"{path}: {name!s:.80} is not a section; allowed are {', '.join(known)}")
    train: dict[str, Any] = {}
    model = settings.get("model")
    if isinstance(model, Mapping) and "use_bfloat16" in model:
        half = convert_value(model["use_bfloat16"], bool, f"{path}: model.use_bfloat16")
        train["precision"] = "auto" if half else "float32"
    device = settings.get("device")
    if isinstance(device, Mapping) and "batch_size" in device:
        train["batch_size"] = device["batch_size"]
    return Config(
        data=_section(DataConfig, settings, "data", path),
        model=_section(ModelConfig, settings, "model", path),
        optimizer=_section(OptimizerConfig, settings, "optimizer", path),
        train=build_section(TrainConfig, train, f"{path}: device"),
    )


def load_model_config(path: str | os.PathLike[str]) -> ModelConfig:
    """The section model of a YAML file of this project or of the reference. Raises like load_official_config."""
    settings = read_yaml(path)
    if "model" not in settings:
        raise ValueError(f"{path} has no section model")
    return _section(ModelConfig, settings, "model", path)


def _section(section: type, settings: Mapping[str, Any], name: str, path: str | os.PathLike[str]) -> Any:
    values = settings.get(name, {})
    where = f"{path}: {name}"
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a map of names to values; got {type(values).__name__}")
    fixed = _FIXED.get(name, {})
    for setting, only in fixed.items():
        if setting in values and (type(values[setting]) is not type(only) or values[setting] != only):
            raise ValueError(f"{where}.{setting} must be {only}, the only supported value; got {values[setting]!r:.80}")
    taken = {k: v for k, v in values.items() if k not in fixed and k not in _LEFT_OUT.get(name, ())}
    return build_section(section, taken, where)
