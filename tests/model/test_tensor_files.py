"""Safetensors files that are written and read one tensor at a time."""

from __future__ import annotations

import hashlib
import os

import pytest
import torch

from reserve.errors import CheckpointError
from reserve.model.tensor_files import DTYPE_NAMES, DTYPES, TensorFiles, write_tensors

safetensors_torch = pytest.importorskip("safetensors.torch", reason="needs the extra train")


def tensors() -> dict[str, torch.Tensor]:
    random = {name: torch.randint(0, 2, (3, 5)).to(dtype) for name, dtype in DTYPES.items()}
    return random | {"scalar": torch.tensor(7), "empty": torch.empty(0, 4), "schön/ü": torch.randn(2, 3).T}


def write(path, values):
    shapes = {name: (DTYPE_NAMES[value.dtype], tuple(value.shape)) for name, value in values.items()}
    return write_tensors(path, shapes, values.__getitem__)


def test_the_file_is_that_of_the_safetensors_library(tmp_path):
    values = {name: value.contiguous() for name, value in tensors().items()}
    write(tmp_path / "ours", values)
    safetensors_torch.save_file(values, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_the_safetensors_library_reads_it(tmp_path):
    values = tensors()
    write(tmp_path / "file", values)
    loaded = safetensors_torch.load_file(tmp_path / "file")
    assert loaded.keys() == values.keys()
    for name, value in values.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value)


def test_its_size_and_checksum_are_returned(tmp_path):
    written = write(tmp_path / "file", tensors())
    content = (tmp_path / "file").read_bytes()
    assert (written.size, written.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_tensor_that_is_not_as_announced_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x is torch.float32 of \(2,\), not F32 of \(3,\)"):
        write_tensors(tmp_path / "file", {"x": ("F32", (3,))}, lambda _: torch.zeros(2))


def test_short_writes_are_continued(tmp_path, monkeypatch):
    """A write to a nearly full disk, or one that a signal interrupts, may take a part only."""
    values, original = tensors(), os.write
    write(tmp_path / "whole", values)

    class Short:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            return original(self.file.fileno(), content[:7])

        def fileno(self):
            return self.file.fileno()

    path_type = type(tmp_path)
    opened = path_type.open
    with monkeypatch.context() as patched:
        patched.setattr(path_type, "open", lambda path, *a, **k: Short(opened(path, *a, **k)))
        write(tmp_path / "short", values)
    assert (tmp_path / "short").read_bytes() == (tmp_path / "whole").read_bytes()


def test_parts_of_tensors_are_read(tmp_path):
    values = tensors()
    write(tmp_path / "file", values)
    f32 = "F32", tuple(values["F32"].shape)
    with TensorFiles(tmp_path) as files:
        assert torch.equal(files.read("file", "F32", *f32, (slice(1, 3), slice(0, 2))), values["F32"][1:3, :2])
        assert torch.equal(files.read("file", "scalar", DTYPE_NAMES[values["scalar"].dtype], ()), values["scalar"])
        with pytest.raises(CheckpointError, match=r"file: .*nothing"):
            files.read("file", "nothing", *f32)
        with pytest.raises(CheckpointError, match="other: cannot be opened"):
            files.read("other", "F32", *f32)
        for dtype, shape in [("F16", f32[1]), ("F32", f32[1][::-1]), ("F32", (1, *f32[1]))]:
            with pytest.raises(CheckpointError, match=r"file: F32 is F32 of shape .*, not F\d\d of shape"):
                files.read("file", "F32", dtype, shape, (slice(0, 1),) * len(shape))
