"""Names that hold control characters are printed as escapes."""

from __future__ import annotations

import pytest

from reserve.cli.app import main
from reserve.data.prepare.progress import preparation_progress
from reserve.data.prepare.results import FileResult
from reserve.terminal import printable, printable_lines

HOSTILE = "a\x1b[2J\x07\n\udcff\u202e é 日.mp4"
SHOWN = "a\\x1b[2J\\x07\\n\\udcff\\u202e é 日.mp4"


def test_printable():
    assert printable(HOSTILE) == SHOWN
    assert printable_lines("one\ntwo\x1b") == "one\ntwo\\x1b"


@pytest.mark.parametrize("status", ["skipped", "prepared"])
def test_a_file_in_the_progress(tmp_path, capsys, status):
    result = FileResult("x", tmp_path / HOSTILE, status, reason="no video", warnings=("warned\x1b",))
    with preparation_progress() as show:
        show(result, 1)
    errors = capsys.readouterr().err
    assert SHOWN in errors
    assert "\x1b" not in errors


def test_an_error(tmp_path, capsys):
    assert main(["prepare", str(tmp_path / "gone\x1b"), str(tmp_path / "out")]) == 1
    assert "gone\\x1b: no such file or folder" in capsys.readouterr().err
