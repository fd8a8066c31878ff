"""Pretrained folders: `model.safetensors` and `config.json`, on the Hugging Face hub and in a run's checkpoints.

This replaces huggingface_hub's mixin, which defining the model would import, which initialises weights only to replace
them, and which does not report what is wrong with a damaged file.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import nn

from reserve.config import ModelConfig
from reserve.config.load import build_section, convert_section
from reserve.errors import CheckpointError
from reserve.fs import replacing, write_text_atomic
from reserve.model.initialization import float32_on_cpu, undrawn
from reserve.model.manifest import CHECKPOINT, read_small_file
from reserve.model.sharded import CONFIG, SHARDS, WEIGHTS, check_config, open_weights
from reserve.model.tensor_files import safetensors_library
from reserve.model.weights import compare_shapes, copy_weight, empty_model, fill_model, listed

logger = logging.getLogger(__name__)

MODEL_TYPE = "merlot_reserve"

_MAX_CONFIG_BYTES = 1 << 20
_MAX_SIZE, _MAX_LAYERS = 1 << 18, 256
_FLOATING = ("F16", "BF16", "F32", "F64")
Model = TypeVar("Model", bound=nn.Module)

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class Pretrained(nn.Module):
    """A model that is stored in a folder with its weights and its configuration.

    A subclass is constructed as `cls(config)` with an instance of its `config_class`, a frozen dataclass. A subclass
    with settings of its own extends its parent's. The direct subclass of Pretrained is the trunk: a folder that lacks
    one of its weights is always an error, whatever further subclasses add.
    """

    config_class: ClassVar[type[ModelConfig]] = ModelConfig
    only_parameters: ClassVar[bool] = False
    """Whether this very class, subclasses aside, is made of nothing but parameters: it is then loaded without being
    filled first."""
    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        _check_storable(config)
        self.config = config
        # Sharding replaces the class of a module by one derived from it.
        self._made_as = type(self)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> Self:
        """Loads a model from a folder of `save_pretrained` or a Hugging Face hub id.

        It is in float32 and on the CPU, whatever torch's default dtype and device are; a subclass's own dtypes stay.
        A checkpoint of a run is such a folder, even with its weights in shards; its checksums are verified. `settings`
        override fields of the stored configuration. The folder may be from another class with the same trunk: weights
        that it lacks keep their initial values, weights that this class does not have are ignored, and a warning names
        both. `revision`, `cache_dir` and `local_files_only` are
        passed to the hub. Raises CheckpointError naming the file and what is wrong with it, and ValueError for an
        unknown or invalid setting.
        """
        folder = find_pretrained(source, revision=revision, cache_dir=cache_dir, offline=local_files_only)
        stored = _read_config(folder / CONFIG)
        own_fields = {field.name for field in fields(cls.config_class)}
        same_class = stored.architecture == _architecture(cls)
        values = {k: v for k, v in stored.settings.items() if same_class or k in own_fields}
        config = _build_config(cls.config_class, values, folder / CONFIG)
        unknown = sorted(settings.keys() - own_fields)
        if unknown:
            raise ValueError(f"{cls.__name__} has no setting {unknown[0]!r}; it has {', '.join(sorted(own_fields))}")
        config = replace(config, **convert_section(cls.config_class, settings, cls.__name__))
        if same_class and _holds_only_parameters(cls):
            return _load_all(empty_model(lambda: cls(config)), folder)
        # Not as an empty model: the class may compute buffers, and draw what the folder of another class lacks.
        with undrawn(), float32_on_cpu():
            model = cls(config)
        _load_into(model, folder, needed=None if same_class else _trunk_names(cls, config))
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], *, step: int = 0) -> None:
        """Writes the weights in their dtype and the configuration; `step` is the number of training steps.

        Each file is replaced atomically. Raises ValueError if a weight is not finite, since it could not be loaded
        again, and OSError if a file cannot be written.
        """
        safetensors = safetensors_library()
        folder = Path(folder)
        state = {name: value.detach().contiguous().cpu() for name, value in stored_tensors(self).items()}
        for name, weight in state.items():
            if not bool(weight.isfinite().all()):
                raise ValueError(f"{name} holds numbers that are not finite")
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(folder / CONFIG, self.config_text(step))
        with replacing(folder / WEIGHTS) as temporary:
            try:
                safetensors.torch.save_file(state, temporary, metadata={"format": "pt"})
            except safetensors.SafetensorError as error:
                raise OSError(f"cannot write {folder / WEIGHTS}: {error}") from error
            # safetensors creates files that only their owner can read.
            temporary.chmod((folder / CONFIG).stat().st_mode)

    def config_text(self, step: int) -> str:
        """The content of config.json after `step` training steps."""
        values: dict[str, Any] = {"model_type": MODEL_TYPE, "step": step}
        if _architecture(self._made_as) is not None:
            values["class"] = _architecture(self._made_as)
        return json.dumps(values | asdict(self.config), indent=2) + "\n"

    def restore(self, folder: str | os.PathLike[str]) -> None:
        """Loads a folder with exactly this class and configuration into this model, in place.

        Raises ValueError naming what differs if the class or the configuration is another one, and CheckpointError if a
        file is damaged.
        """
        self.check_config(folder)
        _load_into(self, Path(folder), needed=None)

    def check_config(self, folder: str | os.PathLike[str]) -> None:
        """Raises ValueError naming what differs unless a folder is of exactly this class and configuration, and
        CheckpointError if its config.json is damaged."""
        path = Path(folder)
        stored = _read_config(path / CONFIG)
        if stored.architecture != _architecture(self._made_as):
            kind = stored.architecture or _trunk(self._made_as).__name__
            raise ValueError(f"{path} is of a {kind}, not of a {self._made_as.__name__}")
        saved = asdict(_build_config(self.config_class, stored.settings, path / CONFIG))
        own = asdict(self.config)
        changed = [f"{name} {value}, not {own[name]}" for name, value in saved.items() if value != own[name]]
        if changed:
            raise ValueError(f"{path} is of a model with {'; '.join(changed)}")

    def load_trunk(self, folder: str | os.PathLike[str]) -> None:
        """Loads what this model has of the folder of a model of another class, or of this one, in place.

        Every weight of the trunk that this model has must be stored. Others that the folder lacks, or has in another
        shape, keep their values; a warning names them, and weights of the folder that go unused. Raises
        CheckpointError.
        """
        _load_into(self, Path(folder), needed=_trunk_names(self._made_as, self.config))


def stored_config(folder: str | os.PathLike[str]) -> ModelConfig:
    """The sizes of a folder's model, without what its class adds. Raises CheckpointError."""
    path = Path(folder) / CONFIG
    names = {field.name for field in fields(ModelConfig)}
    settings = {name: value for name, value in _read_config(path).settings.items() if name in names}
    return _build_config(ModelConfig, settings, path)


def pretrained_step(folder: str | os.PathLike[str]) -> int:
    """The number of training steps of a folder's weights, 0 if it is not stored. Raises CheckpointError."""
    return _read_config(Path(folder) / CONFIG).step


def pretrained_class(folder: str | os.PathLike[str]) -> str | None:
    """The name of the class that a folder's model is of, None for the trunk. Raises CheckpointError."""
    return _read_config(Path(folder) / CONFIG).architecture


def find_pretrained(
    source: str | os.PathLike[str], *, revision: str | None, cache_dir: str | os.PathLike[str] | None, offline: bool
) -> Path:
    """The folder `source`, or the local copy of the Hugging Face hub's repository with that id.

    Raises CheckpointError if there is no such folder or repository.
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
            allow_patterns=[WEIGHTS, CONFIG, CHECKPOINT, SHARDS],
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source} is not a folder and could not be fetched from the hub: {error}") from error
    return Path(str(folder))


def _trunk(cls: type[Pretrained]) -> type[Pretrained]:
    """The direct subclass of Pretrained that `cls` is or derives from."""
    return next(base for base in cls.__mro__ if Pretrained in base.__bases__)


def _holds_only_parameters(cls: type[Pretrained]) -> bool:
    """Whether `cls` itself says so: what a subclass adds is its own affair."""
    return cls.__dict__.get("only_parameters", False)


def _architecture(cls: type[Pretrained]) -> str | None:
    """The class name in config.json: None for the trunk, whose files do not have the key."""
    return None if cls is _trunk(cls) else cls.__name__


def _trunk_names(cls: type[Pretrained], config: ModelConfig) -> frozenset[str]:
    """Names of the trunk's parameters, which every folder must contain."""
    trunk = _trunk(cls)
    own = trunk.config_class(**{field.name: getattr(config, field.name) for field in fields(trunk.config_class)})
    with undrawn(), float32_on_cpu():
        model = empty_model(lambda: trunk(own)) if _holds_only_parameters(trunk) else trunk(own)
    return frozenset(name for name, _ in model.named_parameters())


def stored_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, with shared ones only once, and persistent buffers."""
    parameters = dict(model.named_parameters())
    state = model.state_dict(keep_vars=True)
    buffers = {name: state[name] for name, _ in model.named_buffers() if name in state}
    return {**parameters, **buffers}


def _load_all(model: Model, folder: Path) -> Model:
    """Fills an empty model with the weights of a folder, which must be exactly its parameters."""
    with open_weights(folder) as weights:
        expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
        compare_shapes(expected, _stored_shapes(weights, floating=expected))
        return fill_model(model, lambda name, _: (name, weights.get_tensor(name)))


def _load_into(model: nn.Module, folder: Path, needed: frozenset[str] | None) -> None:
    """Copies the weights of a folder into a model.

    If `needed` is None, they must be exactly the model's. Otherwise only those in `needed` that the model has must be
    stored: the rest of the model is unchanged, the rest of the file is ignored, and a warning names both.
    """
    with open_weights(folder) as weights:
        targets = stored_tensors(model)
        stored = _stored_shapes(weights, floating={k for k, v in targets.items() if v.is_floating_point()})
        shared = set(targets)
        if needed is not None:
            fitting = {k for k in shared & stored.keys() if stored[k] == tuple(targets[k].shape)}
            shared = fitting | (shared & stored.keys() & needed)
        expected = {name: tuple(targets[name].shape) for name in shared | (targets.keys() & (needed or ()))}
        compare_shapes(expected, stored if needed is None else {k: v for k, v in stored.items() if k in expected})
        if needed is not None:
            _warn_of_differences(type(model).__name__, targets.keys(), stored.keys(), shared, folder / WEIGHTS)
        for name in sorted(shared):
            copy_weight(targets[name], name, weights.get_tensor(name))


def _warn_of_differences(
    name: str, targets: Collection[str], stored: Collection[str], shared: Collection[str], path: Path
) -> None:
    new, unused = sorted(set(targets) - set(shared)), sorted(set(stored) - set(shared))
    if new:
        logger.warning(
            "%s lacks %d weights of %s, which keep their initial values: %s", path, len(new), name, listed(new)
        )
    if unused:
        logger.warning("%s has %d weights that %s does not use: %s", path, len(unused), name, listed(unused))


def _stored_shapes(weights: Any, floating: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by name. Raises CheckpointError for an array of a name in `floating` that is not."""
    shapes = {}
    for name in weights.keys():  # noqa: SIM118 (a handle, not a dict)
        array = weights.get_slice(name)
        if name in floating and array.get_dtype() not in _FLOATING:
            raise CheckpointError(f"{name:.120} must hold floating-point numbers; got {array.get_dtype()}")
        shapes[name] = tuple(array.get_shape())
    return shapes


@dataclass(frozen=True)
class _StoredConfig:
    """The content of config.json: the model's settings, its class if it is not the trunk, and the training steps."""

    settings: dict[str, Any]
    architecture: str | None
    step: int


def _read_config(path: Path) -> _StoredConfig:
    check_config(path.parent)
    content = read_small_file(path, _MAX_CONFIG_BYTES)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.pop("model_type", None) != MODEL_TYPE:
        raise CheckpointError(f'{path} must be a map with "model_type": "{MODEL_TYPE}"')
    step, architecture = values.pop("step", 0), values.pop("class", None)
    if type(step) is not int or not 0 <= step < 2**31:
        raise CheckpointError(f"{path}: step must be a whole number from 0 to 2^31 - 1; got {step!r:.80}")
    if not isinstance(architecture, str | None):
        raise CheckpointError(f"{path}: class must be the name of a class; got {architecture!r:.80}")
    return _StoredConfig(values, architecture, step)


def _build_config(kind: type[ModelConfig], values: Mapping[str, Any], path: Path) -> ModelConfig:
    try:
        config = build_section(kind, values, "config")
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    # The limits are those of the trunk's sizes; a subclass knows its own.
    for name, value in ((field.name, getattr(config, field.name)) for field in fields(ModelConfig)):
        limit = _MAX_LAYERS if name.endswith("num_layers") else _MAX_SIZE
        if type(value) in (int, tuple) and max(value if isinstance(value, tuple) else (value,)) > limit:
            raise CheckpointError(f"{path}: config.{name} must be at most {limit}; got {value}")
    return config


def _check_storable(config: ModelConfig) -> None:
    """Raises TypeError where config.json could not give `config` back, which would show only after the training."""
    kind = type(config).__name__
    reserved = {"model_type", "class", "step"} & asdict(config).keys()
    if reserved:
        raise TypeError(f"{kind} must not have a field {reserved.pop()!r}: config.json uses the name itself")
    try:
        again = build_section(type(config), json.loads(json.dumps(asdict(config))), kind)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{kind} cannot be stored in config.json, which takes numbers, text and tuples: {error}"
        ) from error
    if again != config:
        raise TypeError(f"{kind} comes back from config.json as {again}, not as {config}")
