"""Reads and writes the msgpack files of flax.serialization, trees of arrays, without JAX (SPEC 11).

An array is msgpack extension 1 with (shape, dtype name, bytes), a scalar is extension 3 with the same; an array beyond
1 GiB is a map of flat chunks. Nothing in a file is executed, and every size is validated before use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reserve.errors import CheckpointError

_ARRAY, _SCALAR = 1, 3
_CHUNKED = "__msgpack_chunked_array__"
_DTYPES = (
    *("float16", "float32", "float64", "bfloat16", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
# Lists occur only as shapes. The decoder allocates as many items as a list claims to have, so the bound must not depend
# on the size of the file.
_MAX_AXES = 32
_MAX_NAMES = 1 << 20


def decode_tree(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Decodes a file to a map of numpy arrays; bfloat16 becomes float32. Raises CheckpointError."""
    try:
        import msgpack
    except ImportError as error:
        raise ImportError(
            "official checkpoints need the msgpack package: pip install 'merlot-reserve[train]'", name="msgpack"
        ) from error

    try:
        tree = msgpack.unpackb(
            data,
            raw=False,
            ext_hook=_extension,
            object_pairs_hook=_map,
            max_array_len=_MAX_AXES,
            max_map_len=_MAX_NAMES,
        )
    except CheckpointError:
        raise
    except Exception as error:
        # msgpack raises errors of its own, ValueError and UnicodeDecodeError; some have no message.
        raise CheckpointError(f"not a flax msgpack checkpoint: {_describe(error)}") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"not a flax msgpack checkpoint: it holds {type(tree).__name__}, not a map")
    return tree


def _describe(error: Exception) -> str:
    name = type(error).__name__
    if name == "StackError":
        return "maps are nested too deeply"
    if name == "UnicodeDecodeError":
        return f"a name is not UTF-8 ({error})"
    return str(error) or name


def _map(pairs: list[tuple[Any, Any]]) -> Any:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if not isinstance(name, str):
            raise CheckpointError(f"names must be text; got {type(name).__name__} {name!r:.40}")
        if name in result:
            raise CheckpointError(f"the name {name!r:.80} occurs twice in one map")
        result[name] = value
    return _join_chunks(result) if _CHUNKED in result else result


def _join_chunks(leaf: dict[str, Any]) -> np.ndarray:
    """Joins an array beyond 1 GiB, which flax stores as {"shape": {"0": n, …}, "chunks": {"0": flat array, …}}."""
    shape, chunks = _numbered(leaf, "shape"), _numbered(leaf, "chunks")
    sizes = [_size(n) for n in shape]
    if not chunks or not all(isinstance(chunk, np.ndarray) and chunk.ndim == 1 for chunk in chunks):
        raise CheckpointError("the chunks of a chunked array must be flat arrays")
    if len({chunk.dtype for chunk in chunks}) > 1:
        raise CheckpointError("the chunks of a chunked array must have one dtype")
    return _shaped(np.concatenate(chunks), sizes)


def _numbered(leaf: dict[str, Any], part: str) -> list[Any]:
    items = leaf.get(part)
    if not isinstance(items, Mapping) or set(items) != {str(i) for i in range(len(items))}:
        raise CheckpointError(f"the {part} of a chunked array must be a map of the names 0, 1, …")
    return [items[str(i)] for i in range(len(items))]


def _extension(code: int, data: bytes) -> np.ndarray:
    import msgpack

    if code not in (_ARRAY, _SCALAR):
        raise CheckpointError(f"unknown msgpack extension {code}; arrays are {_ARRAY} and scalars {_SCALAR}")
    fields = msgpack.unpackb(data, raw=False, max_array_len=_MAX_AXES, max_map_len=0)
    if not (isinstance(fields, list) and len(fields) == 3):
        raise CheckpointError("an array must be (shape, dtype, bytes)")
    shape, dtype, content = fields
    if not isinstance(shape, list):
        raise CheckpointError(f"an array's shape must be a list of sizes; got {shape!r:.80}")
    sizes = [_size(n) for n in shape]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise CheckpointError(f"an array's dtype must be one of {', '.join(_DTYPES)}; got {dtype!r:.80}")
    if not isinstance(content, bytes):
        raise CheckpointError(f"an array's content must be bytes; got {type(content).__name__}")
    itemsize = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
    if len(content) % itemsize:
        raise CheckpointError(f"an array of {dtype} cannot have {len(content)} bytes")
    flat = bfloat16_to_float32(np.frombuffer(content, np.uint16)) if dtype == "bfloat16" else None
    return _shaped(np.frombuffer(content, dtype) if flat is None else flat, sizes)


def _size(n: Any) -> int:
    # flax may store the sizes of a chunked array as scalars.
    if isinstance(n, np.ndarray) and n.ndim == 0 and n.dtype.kind in "iu":
        n = int(n)
    if type(n) is not int or n < 0:
        raise CheckpointError(f"an array's sizes must be whole numbers of at least 0; got {n!r:.80}")
    return n


def _shaped(flat: np.ndarray, sizes: list[int]) -> np.ndarray:
    count = 1  # Python's integers: a forged shape cannot overflow
    for n in sizes:
        count *= n
    if flat.size != count:
        raise CheckpointError(f"an array of shape {tuple(sizes)} must hold {count} numbers; it holds {flat.size}")
    return flat.reshape(sizes)


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """uint16 bits of bfloat16 numbers -> float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def encode_tree(tree: Mapping[str, Any]) -> bytes:
    """Encodes a tree of arrays, each below 1 GiB, like flax.serialization.msgpack_serialize."""
    import msgpack

    def array(value: Any) -> msgpack.ExtType:
        if isinstance(value, np.ndarray):
            return msgpack.ExtType(_ARRAY, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))
        if isinstance(value, np.generic):
            return msgpack.ExtType(_SCALAR, msgpack.packb(((), value.dtype.name, value.tobytes())))
        raise TypeError(f"cannot store {type(value).__name__}")

    return msgpack.packb(tree, default=array, strict_types=True)
