from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy

from reserve.errors import BadInput
from reserve.tasks.search.parts import Moments, PartHeader, read_header, read_part, write_part

HEADER = PartHeader("model", "key\nof it", "", ("a.mp4", "b\udcff.mp4"), ("c.mp4: damaged",))


def some_moments(**changes) -> Moments:
    rng = np.random.default_rng(0)
    arrays = {
        "start": np.array([0.0, 1.5, 0.0]),
        "end": np.array([1.5, 3.0, 1.5]),
        "video": np.array([0, 0, 1], np.int32),
        "words": rng.standard_normal((3, 4)).astype(np.float16),
        "sounds": rng.standard_normal((2, 4)).astype(np.float16),
        "sound_moment": np.array([0, 2], np.int32),
    }
    return Moments(**(arrays | changes))


def test_a_part_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "part.safetensors"
    write_part(path, HEADER, some_moments())
    header, moments = read_part(path)
    assert (header.videos, header.skipped, header.key) == (HEADER.videos, HEADER.skipped, HEADER.key)
    assert (header.moments, header.sounds) == (3, 2)
    assert header == read_header(path)
    for name, expected in vars(some_moments()).items():
        found = getattr(moments, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "part.safetensors"
    write_part(path, HEADER, some_moments())
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"part\.safetensors is damaged.*checksum of its header; delete it"):
        read_part(path)


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_cut_file_is_noticed_by_its_header(tmp_path, keep):
    path = tmp_path / "part.safetensors"
    write_part(path, HEADER, some_moments())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"part\.safetensors is damaged.*delete it, and the next build"):
        read_header(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": np.array([0, 0, 2], np.int32)}, "video must be below 2; got 0 to 2"),
        ({"sound_moment": np.array([0, -1], np.int32)}, "sound_moment must be below 3; got -1 to 0"),
    ],
)
def test_numbers_that_name_nothing_are_refused(tmp_path, changes, message):
    write_part(tmp_path / "part.safetensors", HEADER, some_moments(**changes))
    with pytest.raises(BadInput, match=message):
        read_part(tmp_path / "part.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": np.zeros(2)}, r"start must be F64 of 3 rows; got F64 of shape \[2\]"),
        ({"words": np.zeros((3, 4), np.float32)}, "words must be F16 of 3 rows; got F32"),
        ({"words": np.zeros(3, np.float16)}, "words must be F16"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    path = tmp_path / "part.safetensors"
    write_part(path, HEADER, some_moments())
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    safetensors.numpy.save_file(vars(some_moments()) | changes, path, metadata=metadata)
    with pytest.raises(BadInput, match=message):
        read_header(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    for about, message in (
        (None, "it has no metadata of a part"),
        ("[]", r"must be a map of the format 'reserve-moments-1'; got \[\]"),
        ('{"format": "reserve-moments-2"}', "got {'format': 'reserve-moments-2'}"),
        ('{"format": "reserve-moments-1"}', "bad or missing header field: KeyError"),
    ):
        metadata = None if about is None else {"moments": about}
        safetensors.numpy.save_file({"words": np.zeros(3)}, path, metadata=metadata)
        with pytest.raises(BadInput, match=message):
            read_header(path)
