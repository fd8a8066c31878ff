"""checkpoint.json: comes back as it was, and says what is wrong with it or with a file."""

from __future__ import annotations

import hashlib
import json

import pytest

from reserve.errors import CheckpointError
from reserve.model.manifest import Chunk, Manifest, StoredTensor, check_files, encode_manifest, read_manifest
from reserve.model.tensor_files import StoredFile

CONTENT = b"x" * 100


def manifest(chunks: list[tuple[tuple[int, ...], tuple[int, ...]]], shape: tuple[int, ...], **changes) -> Manifest:
    tensor = StoredTensor("F32", shape, tuple(Chunk("a", "w", *chunk) for chunk in chunks))
    files = {"a": StoredFile(100, hashlib.sha256(CONTENT).hexdigest())}
    values = {"progress": {"step": 3}, "world_size": 2, "mean_loss": 0.1, "files": files}
    return Manifest(**(values | {"tensors": {"model": {"w": tensor}, "optimizer": {}}} | changes))


WHOLE = manifest([((0, 0), (4, 6))], (4, 6))


@pytest.mark.parametrize(
    ("chunks", "shape"),
    [
        ([((0, 0), (4, 6))], (4, 6)),
        ([((0, 0), (1, 6)), ((1, 0), (3, 6))], (4, 6)),
        ([((0, 0), (4, 2)), ((0, 2), (4, 4))], (4, 6)),
        ([((0, 0), (2, 2)), ((0, 2), (2, 4)), ((2, 0), (2, 5)), ((2, 5), (2, 1))], (4, 6)),
        ([((), ())], ()),
        ([((0,), (0,))], (0,)),
        ([], (0, 5)),
    ],
)
def test_it_comes_back(tmp_path, chunks, shape):
    written = manifest(chunks, shape, mean_loss=None)
    (tmp_path / "checkpoint.json").write_bytes(encode_manifest(written))
    assert read_manifest(tmp_path) == written


@pytest.mark.parametrize(
    ("chunks", "shape"),
    [
        ([], (4, 6)),
        ([((0, 0), (3, 6))], (4, 6)),
        ([((0, 0), (2, 6)), ((1, 0), (3, 6))], (4, 6)),
        ([((0, 0), (2, 6)), ((0, 0), (2, 6))], (4, 6)),
        ([((0, 0), (5, 6))], (4, 6)),
        ([((0, 0), (2, 6)), ((2, 0), (2, 5))], (4, 6)),
        ([((0,), (4,))], (4, 6)),
        ([], ()),
        ([((0,), (1,))], (0,)),
    ],
)
def test_chunks_that_do_not_make_up_a_tensor_are_refused(tmp_path, chunks, shape):
    """What they leave out would be memory that nobody wrote."""
    (tmp_path / "checkpoint.json").write_bytes(encode_manifest(manifest(chunks, shape)))
    with pytest.raises(CheckpointError, match="the chunks of w do not make up its shape"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("shape", [(2**62, 2**62), (10**30,), (26,)], ids=str)
def test_a_tensor_larger_than_its_file_is_refused(tmp_path, shape):
    """Before memory is allocated for it."""
    chunks = [((0,) * len(shape), shape)]
    (tmp_path / "checkpoint.json").write_bytes(encode_manifest(manifest(chunks, shape)))
    with pytest.raises(CheckpointError, match="a has 100 bytes; its tensors need"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("change", [{"world_size": "2"}, {"mean_loss": True}, {"progress": [3]}], ids=str)
def test_values_of_other_types_are_named(tmp_path, change):
    (name,) = change
    (tmp_path / "checkpoint.json").write_bytes(encode_manifest(manifest([((), ())], (), **change)))
    with pytest.raises(CheckpointError, match=f"{name} must be a"):
        read_manifest(tmp_path)


def test_thousands_of_dimensions_are_refused(tmp_path):
    shape = (1,) * 5000
    (tmp_path / "checkpoint.json").write_bytes(encode_manifest(manifest([((0,) * 5000, shape)], shape)))
    with pytest.raises(CheckpointError, match=r"is not a checkpoint's: RecursionError"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "b/a", "", "..", "b\\a"])
def test_files_elsewhere_are_refused(tmp_path, name):
    files = {**WHOLE.files, name: StoredFile(1, "")}
    (tmp_path / "checkpoint.json").write_bytes(encode_manifest(manifest([((0,), (1,))], (1,), files=files)))
    with pytest.raises(CheckpointError, match="is not the name of a file"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"\xff", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"[]", "is damaged"),
        (b"{}", "is damaged"),
        (encode_manifest(WHOLE)[:-9], "is damaged"),
        (encode_manifest(WHOLE).replace(b'"w"', b'"v"'), "is damaged: its SHA-256 is not"),
        (encode_manifest(WHOLE) + b" ", "is damaged: its SHA-256 is not"),
        (encode_manifest(WHOLE).replace(b":", b": ", 1), "is damaged: its SHA-256 is not"),
    ],
)
def test_other_bytes_are_refused(tmp_path, content, message):
    (tmp_path / "checkpoint.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"checkpoint.json.*{message}"):
        read_manifest(tmp_path)


def test_a_later_format_is_named(tmp_path):
    values = json.loads(encode_manifest(WHOLE)) | {"format": 2}
    del values["sha256"]
    body = json.dumps(values, separators=(",", ":")).encode()
    text = body[:-1] + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    (tmp_path / "checkpoint.json").write_bytes(text)
    with pytest.raises(CheckpointError, match="has the format 2; this version reads 1: update the package"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a is missing or damaged"),
        (b"", "a is missing or damaged"),
        (b"xy", "2 bytes, not 100"),
        (b"y" * 100, "SHA-256"),
    ],
)
def test_a_file_that_is_not_as_listed_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        check_files(tmp_path, WHOLE, ["a"])
    (tmp_path / "a").write_bytes(CONTENT)
    check_files(tmp_path, WHOLE, ["a"])


def test_a_file_that_is_not_listed_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint.json does not list config.json"):
        check_files(tmp_path, WHOLE, ["config.json"])
