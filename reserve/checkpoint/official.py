"""Official checkpoints: the flax msgpack files of the released models (SPEC 4, 11)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from reserve.checkpoint.flax_msgpack import bfloat16_to_float32, decode_tree, encode_tree
from reserve.checkpoint.official_layout import PROJ, parameter_entries
from reserve.config import FinetunedConfig, ModelConfig
from reserve.config.load import config_file
from reserve.config.official import load_model_config
from reserve.errors import BadInput, CheckpointError
from reserve.fs import check_regular_file, replacing
from reserve.model.finetuned import FinetunedReserve
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.weights import compare_shapes, copy_weight, empty_model, fill_model, listed

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Mapping[str, Any]

_MAX_DEPTH = 32


class OfficialCheckpoint(NamedTuple):
    """`arrays` by flax path, as stored, and the number of training steps (0 if the checkpoint has none)."""

    arrays: dict[str, np.ndarray]
    step: int


def load_official(source: Source, config: ModelConfig | str) -> MerlotReserve:
    """A model in float32 on the CPU with the weights of an official checkpoint, whatever torch's defaults are.

    `source` is the path of a msgpack file, its bytes, or its decoded dict (with or without the outer `params`), whose
    arrays may be numpy's, torch's or anything that numpy converts. `config` is its sizes, or the name of a packaged
    configuration ("base", "large", "base_resadapt", "large_resadapt") or YAML file. Of a finetuned checkpoint, which
    has `proj` and lacks parts, the model is a FinetunedReserve. Every parameter is used exactly once. Raises
    CheckpointError naming what is missing, extra, misshapen, not a number or not finite, or why the file cannot be
    read, and ValueError for the name of a configuration that does not exist.
    """
    sizes = load_model_config(config_file(config)) if isinstance(config, str) else config
    return model_from_official(read_official(source).arrays, sizes)


def official_config(arrays: Mapping[str, np.ndarray], config: ModelConfig) -> ModelConfig:
    """`config`, as a FinetunedConfig if the arrays are those of a finetuned checkpoint."""
    proj = arrays.get(PROJ)
    if proj is None or isinstance(config, FinetunedConfig):
        return config
    outputs = proj.shape[1] if proj.ndim == 2 and proj.size else 1
    with_audio = any(name.startswith("audio_encoder/") for name in arrays)
    sizes = {field.name: getattr(config, field.name) for field in fields(ModelConfig)}
    return FinetunedConfig(**sizes, outputs=outputs, with_audio=with_audio)


def model_from_official(arrays: Mapping[str, np.ndarray], config: ModelConfig) -> MerlotReserve:
    """A model with the weights in `arrays`, which have official names and shapes. Raises CheckpointError."""
    config = official_config(arrays, config)
    model = empty_model(
        lambda: FinetunedReserve(config) if isinstance(config, FinetunedConfig) else MerlotReserve(config)
    )
    entries = {entry.torch: entry for entry in parameter_entries(config)}
    _check_arrays(arrays, {entry.flax: entry.shape for entry in entries.values()})

    def read(name: str, size: torch.Size) -> tuple[str, torch.Tensor]:
        entry = entries[name]
        return entry.flax, entry.to_torch(arrays[entry.flax], size)

    return fill_model(model, read)


def load_trunk(model: FinetunedReserve, arrays: Mapping[str, np.ndarray]) -> None:
    """Copies the weights that finetuning starts from into `model`: what it has of a pretrained or finetuned checkpoint.

    `proj` keeps its initial weights where the checkpoint has none of its shape. Raises CheckpointError as load_official
    does.
    """
    entries = parameter_entries(model.config)
    if PROJ not in arrays or arrays[PROJ].shape != entries[-1].shape:
        entries = [entry for entry in entries if entry.flax != PROJ]
    names = {entry.flax for entry in entries}
    _check_arrays(
        {name: array for name, array in arrays.items() if name in names}, {entry.flax: entry.shape for entry in entries}
    )
    parameters = dict(model.named_parameters())
    for entry in entries:
        target = parameters[entry.torch]
        copy_weight(target, entry.flax, entry.to_torch(arrays[entry.flax], target.shape))


def _check_arrays(arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises CheckpointError unless the arrays are floating and those expected."""
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise CheckpointError(f"{name:.120} must hold floating-point numbers; got {array.dtype}")
    compare_shapes(expected, {name: array.shape for name, array in arrays.items()})


def read_official(source: Source) -> OfficialCheckpoint:
    """The arrays of an official checkpoint. Raises CheckpointError."""
    if isinstance(source, Mapping):
        tree = source
    elif isinstance(source, bytes | bytearray | memoryview):
        tree = decode_tree(source)
    else:
        tree = _read_file(Path(source))
    params = tree.get("params", tree)
    if not isinstance(params, Mapping):
        raise CheckpointError(f"params must be a map of names; got {type(params).__name__}")
    arrays: dict[str, np.ndarray] = {}
    for name, array in _flatten(params):
        if name in arrays:
            raise CheckpointError(f"two arrays are called {name:.120}")
        arrays[name] = array
    return OfficialCheckpoint(arrays, _step(tree.get("step", 0)) if params is not tree else 0)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        check_regular_file(path)
        content = path.read_bytes()
    except BadInput as error:
        raise CheckpointError(f"{path!s:.500}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path!s:.500}: {error.strerror}") from error
    except MemoryError as error:  # for example a sparse file
        raise CheckpointError(f"cannot read {path}: it does not fit in memory") from error
    try:
        return decode_tree(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _step(value: Any) -> int:
    step = np.asarray(value)
    if step.shape != () or step.dtype.kind not in "iu" or not 0 <= int(step) < 2**31:
        raise CheckpointError(f"step must be a whole number from 0 to 2^31 - 1; got {value!r:.80}")
    return int(step)


def _flatten(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, np.ndarray]]:
    if len(path) == _MAX_DEPTH:
        raise CheckpointError(f"maps are nested more than {_MAX_DEPTH} deep: {'/'.join(path):.120}")
    for name, value in tree.items():
        if not isinstance(name, str):
            raise CheckpointError(f"names must be text; got {type(name).__name__} {name!r:.40}")
        location = (*path, name)
        if isinstance(value, Mapping):
            yield from _flatten(value, location)
        else:
            yield "/".join(location), _as_array("/".join(location), value)


def _as_array(name: str, value: Any) -> np.ndarray:
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        array = np.asarray(value)
    except Exception as error:
        raise CheckpointError(f"{name:.120} must be an array; got {type(value).__name__}: {error!s:.200}") from error
    if array.dtype.name == "bfloat16":  # ml_dtypes' bfloat16, which JAX uses, is not a numpy kind
        return bfloat16_to_float32(array.view(np.uint16))
    if array.dtype.kind not in "fiub":
        raise CheckpointError(f"{name:.120} must hold numbers; got {type(value).__name__} of dtype {array.dtype}")
    return array


def official_tree(model: MerlotReserve, dtype: str = "float16") -> dict[str, Any]:
    """The model's parameters as the nested dict of the official format, in flax's order.

    Raises ValueError if a weight overflows `dtype`, "float16" or "float32", or is missing since its layer was replaced.
    """
    if dtype not in ("float16", "float32"):
        raise ValueError(f"dtype must be 'float16' or 'float32'; got {dtype!r}")
    parameters, entries = dict(model.named_parameters()), parameter_entries(model.config)
    replaced = sorted(entry.torch for entry in entries if entry.torch not in parameters)
    if replaced:
        raise ValueError(
            f"the model lacks {len(replaced)} weights of the official format: {listed(replaced)}. Merge adapters into "
            "its layers, and save it before it is quantised"
        )
    tree: dict[str, Any] = {}
    for entry in sorted(entries, key=lambda e: e.flax.split("/")):
        *folders, leaf = entry.flax.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        with np.errstate(over="ignore"):
            array = entry.to_flax(parameters[entry.torch]).astype(dtype)
        if not np.isfinite(array).all():
            raise ValueError(f"{entry.flax} has numbers that are not finite in {dtype}")
        node[leaf] = array
    return tree


def save_official(model: MerlotReserve, path: str | os.PathLike[str], *, step: int = 0, dtype: str = "float16") -> None:
    """Writes the official format, `{opt_state: None, params, step}`, with the arrays in float16 as released.

    The write is atomic. Raises ValueError if a weight overflows `dtype`, "float16" or "float32", is not finite, or is
    missing, since its layer was replaced.
    """
    content = encode_tree({"opt_state": None, "params": official_tree(model, dtype), "step": np.int32(step)})
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)
