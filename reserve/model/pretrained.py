"""Pretrained folders: `model.safetensors` and `config.json`, as the Hugging Face hub and a run's checkpoints hold them.

They are read and written here rather than by huggingface_hub's mixin, which would have to be imported to define the
model, draws weights before it replaces them, and does not say what is wrong with a damaged file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reserve.config import ModelConfig
from reserve.config_values import build_section
from reserve.model.atomic import replacing
from reserve.model.checkpoint import compare_shapes, empty_model, fill_model
from reserve.model.errors import CheckpointError

if TYPE_CHECKING:
    from reserve.model.merlot_reserve import MerlotReserve

WEIGHTS, CONFIG = "model.safetensors", "config.json"
MODEL_TYPE = "merlot_reserve"

_MAX_CONFIG_BYTES = 1 << 20
_MAX_SIZE, _MAX_LAYERS = 1 << 18, 256
_FLOATING = ("F16", "BF16", "F32", "F64")
Result = TypeVar("Result")

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def save_pretrained(model: MerlotReserve, folder: str | os.PathLike[str], *, step: int = 0) -> None:
    """Writes a model's weights, as they are, and its configuration; `step` is how many steps they were trained for.

    Each of the two files appears whole or not at all; files of their names are replaced. Raises ValueError where a
    weight is not finite, for it could not be loaded again; OSError where a file cannot be written.
    """
    safetensors = _safetensors()
    folder = Path(folder)
    state = {name: parameter.detach().contiguous().cpu() for name, parameter in model.named_parameters()}
    for name, weight in state.items():
        if not bool(weight.isfinite().all()):
            raise ValueError(f"{name} holds numbers that are not finite")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / CONFIG) as temporary:
        values = {"model_type": MODEL_TYPE, "step": step, **asdict(model.config)}
        temporary.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    with replacing(folder / WEIGHTS) as temporary:
        try:
            safetensors.torch.save_file(state, temporary, metadata={"format": "pt"})
        except safetensors.SafetensorError as error:
            raise OSError(f"cannot write {folder / WEIGHTS}: {error}") from error
        # safetensors makes files that nobody else may read.
        temporary.chmod((folder / CONFIG).stat().st_mode)


def load_pretrained(folder: str | os.PathLike[str]) -> MerlotReserve:
    """A model in float32 from the folder's two files. Raises CheckpointError saying what is wrong with which file."""
    model = empty_model(_read_config(Path(folder) / CONFIG)[0])

    def read(weights: Any) -> MerlotReserve:
        stored = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 (a handle, not a dict)
        for name, there in stored.items():
            if there.get_dtype() not in _FLOATING:
                raise CheckpointError(f"{name:.120} must hold floating-point numbers; got {there.get_dtype()}")
        compare_shapes(
            {name: tuple(parameter.shape) for name, parameter in model.named_parameters()},
            {name: tuple(there.get_shape()) for name, there in stored.items()},
        )
        return fill_model(model, lambda name, size: (name, weights.get_tensor(name)))

    return _with_weights(Path(folder) / WEIGHTS, read)


def pretrained_step(folder: str | os.PathLike[str]) -> int:
    """How many steps a folder's weights were trained for; 0 where it does not say. Raises CheckpointError."""
    return _read_config(Path(folder) / CONFIG)[1]


def find_pretrained(
    source: str | os.PathLike[str], *, revision: str | None, cache_dir: str | os.PathLike[str] | None, offline: bool
) -> Path:
    """The folder `source` names: itself, or where the Hugging Face hub's repository of that id has been downloaded to.

    Raises CheckpointError where there is no such folder or repository.
    """
    if Path(source).is_dir():
        return Path(source)
    if not isinstance(source, str) or not _HUB_ID.fullmatch(source):
        raise CheckpointError(f"{source} is neither a folder nor an id of the Hugging Face hub (owner/name)")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            "models of the Hugging Face hub need huggingface_hub: pip install 'merlot-reserve[train]'",
            name="huggingface_hub",
        ) from error
    try:
        folder = snapshot_download(
            source,
            revision=revision,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            local_files_only=offline,
            allow_patterns=[WEIGHTS, CONFIG],
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source} is no folder, and the hub did not give it: {error}") from error
    return Path(str(folder))


def _read_config(path: Path) -> tuple[ModelConfig, int]:
    """The configuration and the step."""
    try:
        if path.exists() and not path.is_file():  # a pipe may never end
            raise CheckpointError(f"cannot read {path}: not a file")
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path} has more than {_MAX_CONFIG_BYTES} bytes")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.pop("model_type", None) != MODEL_TYPE:
        raise CheckpointError(f'{path} must be a map with "model_type": "{MODEL_TYPE}"')
    step = values.pop("step", 0)
    if type(step) is not int or not 0 <= step < 2**31:
        raise CheckpointError(f"{path}: step must be a whole number from 0 to 2^31 - 1; got {step!r:.80}")
    try:
        config = build_section(ModelConfig, values, "config")
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for name, value in asdict(config).items():
        limit = _MAX_LAYERS if name.endswith("num_layers") else _MAX_SIZE
        if type(value) in (int, tuple) and max(value if isinstance(value, tuple) else (value,)) > limit:
            raise CheckpointError(f"{path}: config.{name} must be at most {limit}; got {value}")
    return config, step


def _with_weights(path: Path, read: Callable[[Any], Result]) -> Result:
    """`read` of the opened file; its arrays are read one at a time, when they are asked for."""
    safetensors = _safetensors()
    if not path.is_file():
        raise CheckpointError(f"cannot read {path}: there is no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as weights:
            return read(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "pretrained folders need safetensors: pip install 'merlot-reserve[train]'", name="safetensors"
        ) from error
    return safetensors
