"""Which transcripts a machine has recognised."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from reserve.data.sources.transcripts import is_recognised
from reserve.errors import EnvironmentFailure


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.vtt", "00:01.000 --> 00:02.000\na<00:00:01.500><c> b</c>\n", True),
        ("a.vtt", "00:01.000 --> 00:02.000\n<c.yellow>a b</c>\n", False),
        ("a.srt", "a<00:00:01.500><c> b</c>\n", False),
        ("a.vtt", "", False),
    ],
)
def test_by_what_only_machines_write(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    assert is_recognised(tmp_path / name) == expected


def test_failure_of_the_machine_is_no_answer(tmp_path, monkeypatch):
    (tmp_path / "a.vtt").write_text("x")

    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(EnvironmentFailure, match=r"a\.vtt: .*Too many open files"):
        is_recognised(tmp_path / "a.vtt")
