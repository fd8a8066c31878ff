"""flax's msgpack files, valid and hostile, written here independently of the project's writer."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reserve.checkpoint.flax_msgpack import decode_tree, encode_tree
from reserve.errors import CheckpointError


def array_bytes(shape, dtype, content, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, content)))


def packed(value) -> bytes:
    return msgpack.packb(value, strict_types=True)


def test_arrays_and_scalars_come_back() -> None:
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    tree = decode_tree(packed({"a": {"b": array_bytes((2, 3), "float16", values.tobytes())}, "none": None}))
    np.testing.assert_array_equal(tree["a"]["b"], values)
    assert tree["a"]["b"].dtype == np.float16
    assert tree["none"] is None
    scalar = decode_tree(packed({"step": array_bytes((), "int32", struct.pack("<i", 7), code=3)}))["step"]
    assert scalar.shape == ()
    assert scalar == 7


def test_bfloat16_is_widened_exactly() -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F7F, 0x0001, 0x8000], np.uint16)
    values = decode_tree(packed({"a": array_bytes((5,), "bfloat16", bits.tobytes())}))["a"]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values.view(np.uint32), bits.astype(np.uint32) << 16)


def chunked(shape: dict, chunks: dict) -> bytes:
    return packed({"a": {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}})


def test_chunked_array_is_joined() -> None:
    """By number: of names, "10" comes before "2"."""
    values = np.arange(24, dtype=np.float32)
    parts = {str(i): array_bytes((2,), "float32", values[2 * i : 2 * i + 2].tobytes()) for i in range(12)}
    joined = decode_tree(chunked({"0": 8, "1": 3}, parts))["a"]
    np.testing.assert_array_equal(joined, values.reshape(8, 3))


TWO = array_bytes((2,), "float32", bytes(8))


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ({"0": 3}, {"0": TWO}, "must hold 3 numbers; it holds 2"),
        ({"0": 2}, {"1": TWO}, "chunks of a chunked array must be a map of the names 0"),
        ({"a": 2}, {"0": TWO}, "shape of a chunked array must be a map of the names 0"),
        ({"0": 2}, {}, "must be flat arrays"),
        ({"0": 2}, {"0": 5}, "must be flat arrays"),
        ({"0": 2}, {"0": array_bytes((1, 2), "float32", bytes(8))}, "must be flat arrays"),
        ({"0": 4}, {"0": TWO, "1": array_bytes((2,), "float16", bytes(4))}, "must have one dtype"),
        ({"0": -2}, {"0": TWO}, "at least 0; got -2"),
        ({"0": "2"}, {"0": TWO}, "at least 0; got '2'"),
    ],
)
def test_broken_chunks_are_refused(shape, chunks, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        decode_tree(chunked(shape, chunks))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (array_bytes((3,), "float32", bytes(8)), "must hold 3 numbers; it holds 2"),
        (array_bytes((2**62, 2**62), "float32", bytes(8)), "must hold .* numbers; it holds 2"),
        (array_bytes((0, 2**62), "float32", b""), "."),
        (array_bytes((-1,), "float32", bytes(4)), "at least 0; got -1"),
        (array_bytes((2.0,), "float32", bytes(8)), "at least 0; got 2.0"),
        (array_bytes((True,), "float32", bytes(4)), "at least 0; got True"),
        (array_bytes(2, "float32", bytes(8)), "shape must be a list"),
        (array_bytes((2,), "float32", bytes(7)), "cannot have 7 bytes"),
        (array_bytes((2,), "object", bytes(16)), "dtype must be one of .*; got 'object'"),
        (array_bytes((2,), "<f4", bytes(8)), "dtype must be one of"),
        (array_bytes((2,), ["float32"], bytes(8)), "dtype must be one of"),
        (array_bytes((2,), "float32", "ab"), "content must be bytes; got str"),
        (msgpack.ExtType(1, packed([1, 2])), "must be .shape, dtype, bytes."),
        (msgpack.ExtType(1, b""), "."),
        (msgpack.ExtType(1, packed({})), "must be .shape, dtype, bytes."),
        (msgpack.ExtType(2, packed([1.0, 2.0])), "unknown msgpack extension 2"),
        (msgpack.ExtType(42, b"code"), "unknown msgpack extension 42"),
    ],
)
def test_broken_array_is_refused(value, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        decode_tree(packed({"params": {"a": value}}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "."),
        (b"PK\x03\x04 a zip, as torch saves", "."),
        (packed([1, 2]), "holds list, not a map"),
        (packed("text"), "holds str, not a map"),
        (packed({"a": 1}) + b"\x00", "extra data"),
        (b"\x82" + packed("a") + packed(1) + packed("a") + packed(2), "'a' occurs twice"),
        (b"\x81\xa1\xff\x01", "not UTF-8"),
        (b"\x81\xa1a\xa1\xff", "not UTF-8"),
        (b"\x81\x01\x01", "."),
        (b"\x81\xc4\x01a\x01", "names must be text; got bytes"),
        (b"\x81\xa1a" * 5000 + b"\x00", "nested too deeply"),
        (b"\x81\xa1a" + b"\x91" * 5000 + b"\x00", "nested too deeply"),
    ],
)
def test_data_that_is_not_a_tree_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        decode_tree(content)


@pytest.mark.parametrize(
    "header",
    [
        b"\xdd\xff\xff\xff\xff",  # a list of 2^32 - 1
        b"\xdd\x00\x0f\xff\xff",  # a list as long as the file
        b"\xdf\xff\xff\xff\xff",  # a map
        b"\xdb\xff\xff\xff\xff",  # a string
        b"\xc6\xff\xff\xff\xff",  # bytes
        b"\xc9\xff\xff\xff\xff\x01",  # an extension
    ],
)
def test_claimed_size_reserves_no_memory(header: bytes) -> None:
    # Nested: a decoder that trusts each header would reserve the size of the file many times.
    content = b"\x81\xa1a" + header * 200 + bytes(1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            decode_tree(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(content)


VALID = encode_tree(
    {
        "opt_state": None,
        "params": {"a": {"kernel": np.ones((2, 3), np.float16)}, "b": np.zeros(4, np.float32)},
        "step": np.int32(3),
    }
)


@pytest.mark.parametrize("length", range(len(VALID)))
def test_truncated_anywhere_is_refused(length: int) -> None:
    with pytest.raises(CheckpointError):
        decode_tree(VALID[:length])


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_bytes_give_a_tree_or_an_error(changes: list[tuple[int, int]]) -> None:
    content = bytearray(VALID)
    for position, value in changes:
        content[position] = value
    with contextlib.suppress(CheckpointError):
        assert isinstance(decode_tree(bytes(content)), dict)


@given(st.binary(max_size=200))
def test_random_bytes_give_a_tree_or_an_error(content: bytes) -> None:
    with contextlib.suppress(CheckpointError):
        assert isinstance(decode_tree(content), dict)


def test_encoding_matches_flax() -> None:
    """Byte by byte: map, name, extension 1 of (shape, dtype, bytes); extension 3 for a scalar."""
    array = b"\x93" + b"\x91\x02" + b"\xa7float16" + b"\xc4\x04" + bytes(4)
    scalar = b"\x93" + b"\x90" + b"\xa5int32" + b"\xc4\x04" + bytes(4)
    expected = (
        b"\x82"
        + (b"\xa1a" + b"\xc7" + bytes([len(array)]) + b"\x01" + array)
        + (b"\xa1s" + b"\xc7" + bytes([len(scalar)]) + b"\x03" + scalar)
    )
    assert encode_tree({"a": np.zeros(2, np.float16), "s": np.int32(0)}) == expected


def test_only_arrays_and_names_can_be_written() -> None:
    with pytest.raises(TypeError, match="object"):
        encode_tree({"a": object()})
