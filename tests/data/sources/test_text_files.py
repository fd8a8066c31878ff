"""Reading files of unknown origin."""

from __future__ import annotations

import os

import pytest

from reserve.data.sources.text_files import MAX_TEXT_BYTES, read_text
from reserve.errors import BadInput
from reserve.fs import check_regular_file


def test_size_is_bounded_before_reading(tmp_path):
    with (tmp_path / "a.vtt").open("wb") as file:
        file.truncate(MAX_TEXT_BYTES + 1)
    with pytest.raises(BadInput, match="may have at most"):
        read_text(tmp_path / "a.vtt")


@pytest.mark.parametrize(("make", "reason"), [(os.mkfifo, "not a regular file"), (os.mkdir, "a folder, not a file")])
def test_only_regular_files(tmp_path, make, reason):
    make(tmp_path / "a")
    with pytest.raises(BadInput, match=reason):
        check_regular_file(tmp_path / "a")


def test_dangling_link(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "absent")
    with pytest.raises(BadInput, match="No such file"):
        check_regular_file(tmp_path / "a")
