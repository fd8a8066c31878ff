"""reserve verify: one line a fault, a summary, and an exit status."""

from __future__ import annotations

import pytest

from reserve.cli.app import main
from tests.helpers.small_shards import make_shard_set


@pytest.fixture
def folder(tmp_path):
    make_shard_set(tmp_path / "set", (1, 1), 3)
    return tmp_path / "set"


def test_a_whole_set(folder, capsys):
    assert main(["verify", str(folder), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "2 shards with 2 videos and 6 segments" in out
    assert "MB/s" in out
    assert out.endswith("no faults\n")


def test_faults_are_listed_and_fail(folder, capsys):
    (folder / "evil\x1b[2J\nname").write_text("x")
    tar = folder / "shard-00001.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    assert main(["verify", str(folder), "--workers", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("shard-00001.tar: cut short after 5000 bytes: the last 3 segments of video-1.mp4")
    assert lines[1] == "evil\\x1b[2J\\nname: not a file of this set"
    assert lines[-1] == "2 faults"


def test_an_unfinished_set_is_called_so(folder, capsys):
    (folder / "manifest.json").unlink()
    (folder / "work").mkdir()
    (folder / "shard-00001.json").unlink()
    assert main(["verify", str(folder)]) == 0
    assert "not finished: 1 shards are not there yet" in capsys.readouterr().out


def test_bad_arguments(folder, capsys):
    assert main(["verify", str(folder), "--workers", "0"]) == 2
    assert main(["verify", str(folder / "nothing")]) == 1
    assert "not a set of shards" in capsys.readouterr().err
