"""The official checkpoint format: flax msgpack files of the released models (SPEC 4, 11).

A file is a msgpack map with `params`, a tree of arrays named as in flax; an array is msgpack extension 1 holding
(shape, dtype name, bytes). Nothing in a file is executed, and no size in it is trusted before it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reserve.config import ModelConfig
from reserve.model.merlot_reserve import MerlotReserve

_ARRAY, _SCALAR = 1, 3
_DTYPES = ("float16", "float32", "float64", "bfloat16", "int32", "int64", "uint32")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what is wrong with it."""


@dataclass(frozen=True)
class Entry:
    """One parameter under both its names: `flax` path and `shape`, `torch` name, and whether it is a linear kernel."""

    flax: str
    torch: str
    shape: tuple[int, ...]
    kernel: bool = False

    def to_torch(self, array: np.ndarray, size: torch.Size) -> torch.Tensor:
        """A flax array as the torch parameter of shape `size`: kernels are [in, out] there and [out, in] here."""
        flat = torch.from_numpy(array.astype(np.float32))
        return flat.reshape(size[1], size[0]).T.contiguous() if self.kernel else flat.reshape(size)

    def to_flax(self, value: torch.Tensor) -> np.ndarray:
        """A torch parameter as the flax array."""
        value = value.detach().float().cpu()
        return (value.T if self.kernel else value).contiguous().numpy().reshape(self.shape)


def _transformer(flax: str, name: str, hidden: int, layers: int) -> Iterator[Entry]:
    heads = hidden // 64

    def norm(there: str, here: str) -> Iterator[Entry]:
        yield Entry(f"{flax}/{there}/scale", f"{name}.{here}.weight", (hidden,))
        yield Entry(f"{flax}/{there}/bias", f"{name}.{here}.bias", (hidden,))

    yield from norm("pre_ln", "pre_norm")
    for i in range(layers):
        there, here = f"{flax}/layer_{i:02d}", f"{name}.layers.{i}"
        yield from norm(f"layer_{i:02d}/pre_attn_ln", f"layers.{i}.attention_norm")
        attention = f"{there}/attention_layer"
        yield Entry(f"{attention}/qkv/kernel", f"{here}.attention.qkv.weight", (hidden, 3 * heads, 64), True)
        yield Entry(f"{attention}/qkv/bias", f"{here}.attention.qkv.bias", (3 * heads, 64))
        yield Entry(f"{attention}/attn_proj/kernel", f"{here}.attention.projection.weight", (heads, 64, hidden), True)
        yield from norm(f"layer_{i:02d}/pre_mlp_ln", f"layers.{i}.mlp_norm")
        mlp = f"{there}/mlp_layer"
        yield Entry(f"{mlp}/intermediate/kernel", f"{here}.mlp.intermediate.weight", (hidden, 4 * hidden), True)
        yield Entry(f"{mlp}/intermediate/bias", f"{here}.mlp.intermediate.bias", (4 * hidden,))
        yield Entry(f"{mlp}/out/kernel", f"{here}.mlp.out.weight", (4 * hidden, hidden), True)
    yield from norm("final_ln", "final_norm")


def _cls_transformer(flax: str, name: str, hidden: int, layers: int) -> Iterator[Entry]:
    yield Entry(f"{flax}/transformer/cls", f"{name}.encoder.cls", (hidden,))
    yield from _transformer(f"{flax}/transformer", f"{name}.encoder.transformer", hidden, layers)
    yield Entry(f"{flax}/transformer/cls_proj/kernel", f"{name}.encoder.cls_projection.weight", (hidden, hidden), True)
    yield Entry(f"{flax}/transformer/cls_proj/bias", f"{name}.encoder.cls_projection.bias", (hidden,))


def _pool(encoder: str, hidden: int) -> Iterator[Entry]:
    heads = hidden // 64
    for part in ("query", "key", "value"):
        there, here = f"{encoder}/seq_attnpool/{part}", f"{encoder}.pool.{part}"
        yield Entry(f"{there}/kernel", f"{here}.weight", (hidden, heads, 64), True)
        yield Entry(f"{there}/bias", f"{here}.bias", (heads, 64))
    yield Entry(f"{encoder}/seq_attnpool/out/kernel", f"{encoder}.pool.out.weight", (heads, 64, hidden), True)
    yield Entry(f"{encoder}/seq_attnpool/out/bias", f"{encoder}.pool.out.bias", (hidden,))


def parameter_entries(config: ModelConfig) -> list[Entry]:
    """Every parameter of the model with its name and shape in the official layout (SPEC 4)."""
    hidden, patch = config.hidden_size, 3 * config.vit_patch_size**2
    audio = (config.audio_patch_size, 65, hidden)
    return [
        Entry("vision_encoder/embedding/kernel", "vision_encoder.embedding.weight", (patch, hidden), True),
        Entry("vision_encoder/embedding/bias", "vision_encoder.embedding.bias", (hidden,)),
        *_cls_transformer("vision_encoder", "vision_encoder", hidden, config.vit_num_layers),
        *_pool("vision_encoder", hidden),
        Entry("audio_encoder/embedding/kernel", "audio_encoder.embedding.weight", audio, True),
        Entry("audio_encoder/embedding/bias", "audio_encoder.embedding.bias", (hidden,)),
        *_cls_transformer("audio_encoder", "audio_encoder", hidden, config.audio_num_layers),
        *_pool("audio_encoder", hidden),
        Entry("token_encoder/Embed_0/embedding", "token_embedding.weight", (config.vocab_size, hidden)),
        *_cls_transformer("span_encoder", "span_encoder", hidden, config.span_num_layers),
        *_transformer("joint_transformer", "joint_transformer", hidden, config.joint_num_layers),
        Entry("head/kernel", "head.weight", (hidden, hidden), True),
        Entry("head/bias", "head.bias", (hidden,)),
        Entry("contrastive_scales", "contrastive_scales", (3,)),
    ]


def load_official(source: str | Path | bytes | Mapping[str, Any], config: ModelConfig) -> MerlotReserve:
    """A model with the weights of an official checkpoint.

    `source` is the path of a msgpack file, its bytes, or the dict it holds (with or without the outer `params`), whose
    arrays may be numpy's or anything numpy can take. Every parameter is used exactly once. Raises CheckpointError
    naming what is missing, extra or misshapen, or why the file cannot be read.
    """
    arrays = read_official(source)
    entries = {entry.flax: entry for entry in parameter_entries(config)}
    missing, extra = sorted(entries.keys() - arrays.keys()), sorted(arrays.keys() - entries.keys())
    wrong = [
        f"{name} is {arrays[name].shape}, not {entries[name].shape}"
        for name in sorted(entries.keys() & arrays.keys())
        if arrays[name].shape != entries[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
        for what, names in [("missing", missing), ("unknown", extra), ("misshapen", wrong)]
        if names
    ]
    if problems:
        raise CheckpointError("the checkpoint does not fit the configuration: " + "; ".join(problems))
    with torch.device("meta"):  # no time spent drawing weights that are overwritten
        model = MerlotReserve(config)
    model.to_empty(device="cpu")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for entry in entries.values():
            parameters[entry.torch].copy_(entry.to_torch(arrays[entry.flax], parameters[entry.torch].shape))
    return model


def read_official(source: str | Path | bytes | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of an official checkpoint by their flax path, as they are stored."""
    tree = source if isinstance(source, Mapping) else _decode(source)
    tree = tree.get("params", tree)
    if not isinstance(tree, Mapping):
        raise CheckpointError(f"params must be a map of names; got {type(tree).__name__}")
    return dict(_flatten(tree))


def _decode(source: str | Path | bytes) -> Mapping[str, Any]:
    import msgpack

    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {source}: {error.strerror}") from error
    try:
        tree = msgpack.unpackb(data, ext_hook=_array, raw=False, strict_map_key=True)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"not a flax msgpack checkpoint: {error or type(error).__name__}") from error
    if not isinstance(tree, Mapping):
        raise CheckpointError(f"a checkpoint must be a map with params; got {type(tree).__name__}")
    return tree


def _array(code: int, data: bytes) -> np.ndarray:
    import msgpack

    if code not in (_ARRAY, _SCALAR):
        raise CheckpointError(f"unknown msgpack extension {code}; arrays are {_ARRAY} and scalars {_SCALAR}")
    fields = msgpack.unpackb(data, raw=False)
    if not (isinstance(fields, list) and len(fields) == 3):
        raise CheckpointError("an array must be (shape, dtype, bytes)")
    shape, dtype, content = fields
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise CheckpointError(f"an array's shape must be a list of sizes; got {shape!r:.80}")
    if dtype not in _DTYPES or not isinstance(content, bytes):
        raise CheckpointError(f"an array's dtype must be one of {', '.join(_DTYPES)}; got {dtype!r:.80}")
    if dtype == "bfloat16":
        halves = np.frombuffer(content, np.uint16).astype(np.uint32)
        flat: np.ndarray = (halves << 16).view(np.float32)
    else:
        flat = np.frombuffer(content, dtype)
    # In Python's integers: a forged shape cannot overflow the product.
    count = 1
    for n in shape:
        count *= n
    if flat.size != count:
        raise CheckpointError(f"an array of shape {shape} must hold {count} numbers; it holds {flat.size}")
    return flat.reshape(shape)


def _flatten(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        here = f"{path}/{name}" if path else str(name)
        if isinstance(value, Mapping):
            yield from _flatten(value, here)
            continue
        try:
            array = np.asarray(value)
        except Exception as error:
            raise CheckpointError(f"{here} must be an array; got {type(value).__name__}") from error
        if array.dtype.kind not in "fiu":
            raise CheckpointError(f"{here} must hold numbers; got {type(value).__name__} of dtype {array.dtype}")
        yield here, array


def official_tree(model: MerlotReserve, dtype: str = "float16") -> dict[str, Any]:
    """The model's parameters as the nested dict of the official format, names sorted as flax sorts them."""
    parameters = dict(model.named_parameters())
    tree: dict[str, Any] = {}
    for entry in sorted(parameter_entries(model.config), key=lambda e: e.flax.split("/")):
        *folders, leaf = entry.flax.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = entry.to_flax(parameters[entry.torch]).astype(dtype)
    return tree


def save_official(model: MerlotReserve, path: str | Path, *, step: int = 0, dtype: str = "float16") -> None:
    """Writes the official format: float16 msgpack of `{opt_state: None, params, step}`, as the released files are."""
    import msgpack

    pack: Callable[[Any], bytes] = msgpack.packb

    def default(value: Any) -> msgpack.ExtType:
        if isinstance(value, np.ndarray):
            return msgpack.ExtType(_ARRAY, pack((value.shape, value.dtype.name, value.tobytes())))
        if isinstance(value, np.generic):
            return msgpack.ExtType(_SCALAR, pack(((), value.dtype.name, value.tobytes())))
        raise TypeError(f"cannot store {type(value).__name__}")

    tree = {"opt_state": None, "params": official_tree(model, dtype), "step": np.int32(step)}
    Path(path).write_bytes(msgpack.packb(tree, default=default, strict_types=True))
