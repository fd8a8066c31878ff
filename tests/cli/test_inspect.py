"""reserve inspect: writes a page, and says where."""

from __future__ import annotations

import pytest

from reserve.cli.app import main
from tests.helpers.small_shards import make_shard_set


@pytest.fixture
def folder(tmp_path, monkeypatch):
    make_shard_set(tmp_path / "my set", (1,), 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my set"


def test_pages_of_a_set_and_of_a_shard(folder, capsys):
    before = sorted(folder.iterdir())
    assert main(["inspect", str(folder)]) == 0
    assert "my set.html: open it in a browser" in capsys.readouterr().out
    assert main(["inspect", str(folder / "shard-00000.tar"), "--video", "video-0.mp4"]) == 0
    assert {path.name for path in folder.parent.glob("*.html")} == {"my set.html", "shard-00000.html"}
    assert sorted(folder.iterdir()) == before


def test_bad_arguments(folder, capsys):
    assert main(["inspect", str(folder), "--videos", "0"]) == 2
    assert main(["inspect", str(folder), "--out", str(folder)]) == 2
    assert main(["inspect", str(folder / "gone")]) == 1
    assert "not a set of shards" in capsys.readouterr().err
